#!/bin/bash
# Measures what a client at the control plane's address sees when something happens to an API server, with Berth and with others
# beside it, and prints a Markdown report. KUBE_VIP=/path/to/kube-vip measures one that you have built as well.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "control-plane: must run as root: the lab makes network namespaces" >&2; exit 1; }
e2e/needs.sh control-plane cargo go
e2e/packages.sh keepalived curl >&2
e2e/images.sh --features berth-e2e/measure --bin servers >&2
target/release/lab build >&2
exec target/release/servers "$@"
