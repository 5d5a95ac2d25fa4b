#!/bin/bash
# Each half of kube-vip beside ours, with programs that whoever asks for it has built:
#   make compat-stock KUBE_VIP=/path/to/kube-vip CCM=/path/to/kube-vip-cloud-provider
# More arguments are words that the parts to run contain: moves, crashed, reports.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in KUBE_VIP CCM; do
	program=${!name:-}
	[ -f "$program" ] && [ -x "$program" ] && continue
	echo "compat-stock: $name=${program:-(unset)} is no program: give the stock ones that you have built," \
		"as in: make compat-stock KUBE_VIP=/path/to/kube-vip CCM=/path/to/kube-vip-cloud-provider" >&2
	exit 2
done
e2e/needs.sh compat-stock cargo go
e2e/images.sh --features berth-e2e/measure --bin stock >&2
target/release/lab build >&2
exec target/release/stock "$KUBE_VIP" "$CCM" "$@"
