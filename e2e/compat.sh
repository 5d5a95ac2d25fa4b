#!/bin/bash
# What must hold on every Kubernetes that Berth supports, on the oldest: the suites that meet its API and its nodes most.
# The newest is what `make test` runs on.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(sed -n 's/.*k8s\.io\/kubernetes v//p' e2e/kubernetes/oldest/go.mod | sed -n 1p)
echo "Kubernetes $oldest"
BERTH_KUBERNETES=$oldest exec e2e/test.sh black_box:: product::expose:: product::failover:: product::eip:: \
	product::eip_allocation:: real_nodes::
