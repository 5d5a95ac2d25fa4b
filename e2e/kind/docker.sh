#!/bin/bash
# Runs a command beside a Docker daemon of its own. As the first process of a PID namespace, with a network and mounts of
# its own, so that all of it ends with this:
#   docker.sh FOLDER NODE-ARCHIVE IMAGE COMMAND [ARGUMENT...]
# The daemon's files are in FOLDER; its cgroups are below one of FOLDER's name.
set -euo pipefail
folder=$1 archive=$2 image=$3
shift 3

mount -t tmpfs -o mode=755 run /run
ip link set lo up
# As of a Docker that knows no CAP_BPF: what the daemon has not, it gives to no container.
without=()
[ "${WITHOUT_BPF:-}" != 1 ] || without=(setpriv --bounding-set=-bpf)
"${without[@]}" dockerd --data-root "$folder/docker" --cgroup-parent "/${folder##*/}" --exec-opt native.cgroupdriver=cgroupfs \
	--storage-driver overlay2 >"$folder/dockerd.log" 2>&1 &
daemon=$!
fail() {
	tail -n 30 "$folder/dockerd.log" >&2
	echo "kind-here: $1" >&2
	exit 1
}
begun=$SECONDS
until docker info >/dev/null 2>&1; do
	kill -0 $daemon 2>/dev/null || fail "Docker's daemon ended; its last words are above"
	[ $((SECONDS - begun)) -lt 60 ] || fail "Docker's daemon does not answer after 60 s; its last words are above"
	sleep 0.2
done
docker import --change 'ENV container=docker' \
	--change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' "$archive" "$image" >/dev/null

code=0
"$@" || code=$?
kill $daemon
wait $daemon || true
exit $code
