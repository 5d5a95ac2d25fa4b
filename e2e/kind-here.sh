#!/bin/bash
# Runs e2e/kind.sh on a machine that has neither Docker nor kind, and asks no registry: brings both, with a node image of
# Debian's packages and the Kubernetes that the lab builds, and takes the running parts away again. With arguments it
# runs these as a command in place of e2e/kind.sh; bash, to look around.
#
#   BERTH_KUBERNETES  the release, as for the lab
#   WITHOUT_BPF=1     Docker has no CAP_BPF to give, as before 23
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "kind-here: must run as root: it starts Docker's daemon" >&2; exit 1; }
e2e/needs.sh kind-here cargo go

e2e/packages.sh debootstrap jq
e2e/build.sh
# Later there is no network to fetch crates by.
cargo test --locked --workspace --test black_box --no-run
parts=$(target/release/lab kind)
mapfile -t parts <<<"$parts"
PATH=${parts[0]}:$PATH:/usr/sbin:/sbin
export PATH

# Docker's overlays need a file system on a disk.
folder=$(mktemp --directory /var/tmp/berth-kind-XXXXXX)
# kubelet sets these, of the whole machine.
set_by_kubelet=$(cd /proc/sys && grep --with-filename . vm/overcommit_memory vm/panic_on_oom kernel/panic \
	kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)
cleanup() {
	code=$?
	trap - EXIT
	while IFS=: read -r name value; do
		echo "$value" >"/proc/sys/$name" || true
	done <<<"$set_by_kubelet"
	find /sys/fs/cgroup -depth -type d -path "*/${folder##*/}*" -exec rmdir {} + 2>/dev/null || true
	rm -rf "$folder"
	exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

version=$(kubectl version --client --output=json | jq --raw-output .clientVersion.gitVersion)
{
	cat e2e/kind/cluster.yaml
	cat <<YAML
  - |
    kind: ClusterConfiguration
    imageRepository: localhost/berth
    etcd: {local: {imageTag: $version}}
  # Nothing here asks for a name.
  - |
    kind: InitConfiguration
    skipPhases: [preflight, addon/coredns]
YAML
} >"$folder/cluster.yaml"
export KIND_IMAGE=berth-kind-node:$version KIND_CONFIG=$folder/cluster.yaml
[ $# -gt 0 ] || set -- e2e/kind.sh
unshare --net --mount --pid --fork --kill-child --mount-proc \
	e2e/kind/docker.sh "$folder" "${parts[1]}" "$KIND_IMAGE" "$@"
