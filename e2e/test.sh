#!/bin/bash
# Runs the tests that need the lab: builds what they start, then each test program in turn.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "e2e: must run as root: the lab makes network namespaces and containers" >&2; exit 1; }
e2e/packages.sh
e2e/images.sh
target/release/lab build
# One at a time: each lab wants the machine for itself.
exec cargo test --locked --release --package berth-e2e -- --test-threads=1 "$@"
