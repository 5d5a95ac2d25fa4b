#!/bin/bash
# Runs the tests that need the lab: builds what they start, then each test program in turn.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "e2e: must run as root: the lab makes network namespaces and containers" >&2; exit 1; }
e2e/packages.sh qemu-system-x86_64
e2e/images.sh
target/release/lab build
# As `make unit` has built it: what runs under another kernel is the announcer's own test.
messages=$(cargo test --locked --test network --no-run --message-format=json)
BERTH_NETWORK_TESTS=$(sed -n 's/.*"executable":"\([^"]*\/network-[^"]*\)".*/\1/p' <<<"$messages")
export BERTH_NETWORK_TESTS
# One at a time: each lab wants the machine for itself.
exec cargo test --locked --release --package berth-e2e -- --test-threads=1 "$@"
