#!/bin/bash
# What must hold on every Kubernetes that Berth supports, on the oldest: the suites that meet its API and its nodes most.
# The newest is what `make test` runs on. Then from the commit before this and back. Then what a user does with the manifests, on
# nodes that are not the lab's but kind's: on the newest, and on the oldest in a Docker that has no CAP_BPF to give.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(sed -n 's/.*k8s\.io\/kubernetes v\([^ ]*\).*/\1/p' e2e/kubernetes/oldest/go.mod | sed -n 1p)
echo "Kubernetes $oldest"
BERTH_KUBERNETES=$oldest BERTH_CONTROL_PLANE=1 e2e/test.sh black_box:: product::expose:: product::failover:: product::eip:: \
	product::eip_allocation:: product::control_plane:: real_nodes::
# kubeadm itself, on the oldest and on the newest; with keepalived and haproxy, from which a control plane comes to us.
e2e/packages.sh keepalived haproxy
BERTH_KUBERNETES=$oldest BERTH_CONTROL_PLANE=1 e2e/test.sh --no-build --suite kubeadm
BERTH_CONTROL_PLANE=1 e2e/test.sh --no-build --suite kubeadm
# MetalLB itself in place of what is done by hand for it.
BERTH_METALLB=1 e2e/test.sh --no-build product::moving::
e2e/upgrade.sh
e2e/kind-here.sh
BERTH_KUBERNETES=$oldest WITHOUT_BPF=1 BERTH_E2E_MANIFESTS=overlays/without-bpf e2e/kind-here.sh
