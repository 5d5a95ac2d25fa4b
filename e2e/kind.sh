#!/bin/bash
# Runs the black-box tests against a kind cluster, on a machine that has Docker and kind: makes the cluster, loads the
# image archives, runs the tests, and removes the cluster. With KEEP=1 a cluster stays, and is used again next time.
#
#   KIND_NAME   the cluster's name (berth-e2e)
#   KIND_IMAGE  the node image (kind's own choice)
set -euo pipefail
cd "$(dirname "$0")/.."

name=${KIND_NAME:-berth-e2e}
for tool in docker kind kubectl cargo; do
	command -v "$tool" >/dev/null || { echo "kind: $tool is not installed" >&2; exit 1; }
done
docker info >/dev/null 2>&1 || { echo "kind: Docker does not answer; is its daemon running?" >&2; exit 1; }

folder=$(mktemp -d)
export KUBECONFIG=$folder/kubeconfig
cleanup() {
	code=$?
	trap - EXIT
	if [ "$code" != 0 ]; then
		kind export logs --name "$name" target/kind-logs >/dev/null 2>&1 &&
			echo "kind: logs are kept in target/kind-logs" >&2
	fi
	if [ "${KEEP:-}" != 1 ]; then
		docker rm --force "$name-client" >/dev/null 2>&1 || true
		kind delete cluster --name "$name" >/dev/null 2>&1 || true
	fi
	rm -rf "$folder"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

e2e/images.sh

if kind get clusters 2>/dev/null | grep --quiet --line-regexp "$name"; then
	kind export kubeconfig --name "$name" --kubeconfig "$KUBECONFIG"
else
	options=()
	[ -z "${KIND_IMAGE:-}" ] || options=(--image "$KIND_IMAGE")
	kind create cluster --name "$name" --kubeconfig "$KUBECONFIG" --wait 180s "${options[@]}" --config - <<'YAML'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  ipFamily: dual
nodes:
  - role: control-plane
  - role: worker
  - role: worker
YAML
fi

# The host beside the nodes on their network, from which the tests look; the node image has curl.
if ! docker inspect "$name-client" >/dev/null 2>&1; then
	image=$(docker inspect --format '{{.Config.Image}}' "$name-control-plane")
	docker run --detach --name "$name-client" --network kind --entrypoint sleep "$image" infinity >/dev/null
fi

for archive in target/images/*.tar; do
	kind load image-archive "$archive" --name "$name"
done

BERTH_E2E_CLUSTER=kind BERTH_E2E_KIND_NAME=$name \
	cargo test --locked --workspace --test black_box -- --test-threads=1 "$@"
