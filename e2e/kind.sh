#!/bin/bash
# Runs the black-box tests against a kind cluster of three nodes, on a machine that has Docker and kind (e2e/kind-here.sh
# brings both): makes the cluster, loads the image archives, runs the tests, and removes the cluster. One that was there
# before is used, and stays.
#
#   KIND_NAME            the cluster's name (berth-e2e)
#   KIND_IMAGE           the node image (the one below)
#   KIND_CONFIG          the cluster's configuration (e2e/kind/cluster.yaml)
#   KEEP=1               the cluster stays, and the next run uses it
#   BERTH_E2E_MANIFESTS  what is installed (manifests)
set -euo pipefail
cd "$(dirname "$0")/.."

# What this is tried with. The node image is the one that this release of kind was tested with; Docker is 23 or later.
kind=$(sed -n 's/.*sigs\.k8s\.io\/kind v\([^ ]*\).*/\1/p' e2e/kind/go.mod)
docker=$(sed -n 's/.*github\.com\/docker\/docker v\([^ +]*\).*/\1/p' e2e/kind/go.mod)
node=kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5

name=${KIND_NAME:-berth-e2e}
image=${KIND_IMAGE:-$node}
manifests=${BERTH_E2E_MANIFESTS:-manifests}
fail() { echo "kind: $*" >&2; exit 1; }

for tool in docker kind kubectl cargo; do
	command -v "$tool" >/dev/null || fail "$tool is not installed; e2e/kind-here.sh brings it"
done
has_docker=$(docker version --format '{{.Server.Version}}' 2>/dev/null) ||
	fail "Docker does not answer; is its daemon running?"
has_kind=$(kind version --quiet)
echo "kind: kind $has_kind, Docker $has_docker, node image $image"
[ "$has_kind ${has_docker%%[-+]*}" = "$kind $docker" ] || echo "kind: this is tried with kind $kind and Docker $docker" >&2

lock=/tmp/berth-kind-$name.lock
exec 9>"$lock"
flock --nonblock 9 || fail "another run has the cluster $name; choose another name by KIND_NAME"

folder=$(mktemp -d)
export KUBECONFIG=$folder/kubeconfig
made=
cleanup() {
	code=$?
	trap - EXIT
	if [ "$code" != 0 ] && [ -n "$made" ]; then
		rm -rf target/kind-logs
		kind export logs --name "$name" target/kind-logs >/dev/null 2>&1 || true
		[ ! -d target/kind-logs ] || echo "kind: logs are kept in target/kind-logs" >&2
	fi
	case $made in
	before) ;;
	whole) [ "${KEEP:-}" = 1 ] || made=half ;;
	esac
	if [ "$made" = half ]; then
		docker rm --force --volumes "$name-client" >/dev/null 2>&1 || true
		kind delete cluster --name "$name" >/dev/null 2>&1 || true
	elif [ -n "$made" ]; then
		echo "kind: the cluster stays; to remove it: docker rm --force $name-client; kind delete cluster --name $name"
	fi
	rm -rf "$folder" "$lock"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Where Docker itself knows no CAP_BPF, containerd in the nodes cannot give it on, and the pods would never start.
asked=$(kubectl kustomize "$manifests")
if [[ $asked == *"- BPF"* ]]; then
	bounds=$(docker run --rm --privileged --entrypoint sed "$image" -n 's/^CapBnd:\s*//p' /proc/self/status)
	(((0x$bounds >> 39) & 1)) || fail "Docker $has_docker gives no container CAP_BPF, which the announcer's pods ask for:" \
		"they would never start. Docker 23 or later gives it where the machine has it;" \
		"to install without: BERTH_E2E_MANIFESTS=overlays/without-bpf"
fi

e2e/images.sh

clusters=$(kind get clusters --quiet)
if grep --quiet --line-regexp --fixed-strings -- "$name" <<<"$clusters"; then
	made=before
	echo "kind: using the cluster $name that is there"
	kind export kubeconfig --name "$name" --kubeconfig "$KUBECONFIG"
else
	made=half
	# --retain: what failed is looked at before it is removed.
	kind create cluster --name "$name" --image "$image" --config "${KIND_CONFIG:-e2e/kind/cluster.yaml}" \
		--kubeconfig "$KUBECONFIG" --wait 180s --retain
	made=whole
fi

# The host beside the nodes on their network, from which the tests look; the node image has curl.
docker rm --force --volumes "$name-client" >/dev/null 2>&1 || true
image=$(docker inspect --format '{{.Config.Image}}' "$name-control-plane")
docker run --detach --name "$name-client" --network kind --entrypoint sleep "$image" infinity >/dev/null

for archive in target/images/*.tar; do
	kind load image-archive "$archive" --name "$name"
done
# Images keep their names: pods of an earlier run would go on with those they have.
kubectl --namespace kube-system delete pods --selector 'app.kubernetes.io/name in (berth-announcer, berth-ccm)' \
	--ignore-not-found

BERTH_E2E_CLUSTER=kind BERTH_E2E_KIND_NAME=$name BERTH_E2E_MANIFESTS=$manifests \
	cargo test --locked --workspace --test black_box -- --test-threads=1 "$@"
