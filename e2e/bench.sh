#!/bin/bash
# Measures Berth in the lab and prints a Markdown report. docs/benchmarks.md is such a report, with its date.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "bench: must run as root: the lab makes network namespaces and containers" >&2; exit 1; }
e2e/needs.sh bench cargo go
e2e/packages.sh >&2
e2e/images.sh --features berth-e2e/measure --bin bench >&2
target/release/lab build >&2
exec target/release/bench "$@"
