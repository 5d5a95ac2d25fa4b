#!/bin/sh
# Holds the direction of dependencies that docs/architecture.md draws:
# ipam depends on no crate of the workspace, no runtime and no client; the announcer sees neither ipam nor index.
# Inside a crate, modules.py holds that imports point one way.
set -eu
cd "$(dirname "$0")/.."
failed=0

# forbid CRATE PATTERN WHY: no normal dependency of CRATE, direct or not, may match PATTERN.
forbid() {
	found=$(cargo tree --locked --package "$1" --edges normal --prefix none --no-dedupe --format '{p}' |
		tail -n +2 | cut -d' ' -f1 | sort -u | grep -E "^($2)\$" || true)
	if [ -n "$found" ]; then
		echo "dependencies: $1 must not depend on" $found "($3)" >&2
		failed=1
	fi
}

forbid berth-ipam 'berth-.*' 'address arithmetic stands below everything'
forbid berth-ipam 'tokio|kube.*|k8s-openapi|rand' 'it is pure: no runtime, no client, no randomness'
forbid berth-api 'berth-.*' 'the contract stands below both programs'
forbid berth-api 'tokio|kube-client|kube-runtime' 'the contract has no client'
forbid berth-index 'berth-(runtime|ccm|announcer)|tokio|kube-client|kube-runtime' 'what decides is pure: no runtime, no client'
forbid berth-runtime 'berth-(ipam|index|ccm|announcer)' 'what both programs share knows neither'
forbid berth-announcer 'berth-(ipam|index|ccm)' 'the announcer never chooses an address'
forbid berth-fence 'berth-.*|tokio|kube.*' 'the fence knows the kernel and nothing else'
forbid berth-membership 'berth-.*|tokio|kube.*|socket2' 'the protocol is pure'
forbid berth-bgp 'berth-.*|tokio|kube.*|socket2|nix' 'the speaker decides without I/O'
forbid berth-bgp-speaker 'berth-(api|runtime|ipam|index|ccm|announcer|fence|membership)|kube.*' 'its sockets know BGP and nothing else'
forbid berth-ccm 'berth-announcer|rtnetlink' 'the ccm never touches an interface'
forbid berth-e2e 'berth-.*' 'the tests judge from outside'
forbid lab-programs 'berth-.*|tokio|kube.*|nix' 'it is built in seconds, before all others'
forbid lab-routers 'berth-.*|tokio|kube.*' 'routers judge, and know nothing of who is judged'
[ "$failed" = 0 ] && echo "dependencies: the direction holds"
.ci/modules.py --self-test && .ci/modules.py || failed=1
exit "$failed"
