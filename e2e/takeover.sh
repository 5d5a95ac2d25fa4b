#!/bin/bash
# Measures takeovers after a crash, of Berth and of others beside it, and prints a Markdown report.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "takeover: must run as root: the lab makes network namespaces" >&2; exit 1; }
e2e/needs.sh takeover cargo go
e2e/packages.sh keepalived >&2
e2e/images.sh --features berth-e2e/measure --bin takeover >&2
target/release/lab build >&2
exec target/release/takeover "$@"
