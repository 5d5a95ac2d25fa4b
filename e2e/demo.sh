#!/bin/bash
# Shows Berth on three real nodes, from nothing to an answering address, and leaves the lab up.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }
# Nothing here is measured, so all is built as it is quickest.
export BERTH_PROFILE=dev
lab=target/debug/lab

[ "$(id -u)" = 0 ] || { echo "demo: must run as root: it makes network namespaces and containers" >&2; exit 1; }
e2e/needs.sh demo cargo go

say "1/5 Debian packages that are missing"
e2e/packages.sh
say "2/5 Berth, the lab and Kubernetes from source (some ten minutes the first time, on two cores; little afterwards)"
e2e/build.sh
# One that is up is begun anew.
say "3/5 Three real nodes (a minute from here to the end)"
$lab down --name demo >/dev/null 2>&1 || true
$lab up --name demo --nodes 3 --images target/debug/images
KUBECONFIG=$($lab status --name demo --kubeconfig)
export KUBECONFIG
PATH="$($lab status --name demo --bin):$PATH"
run kubectl get nodes

say "4/5 Berth, pools and a Deployment, as you would"
run kubectl apply -k manifests/
# The lab's LAN is 10.0.0.0/16 and fd00:10::/64; these addresses are free there.
kubectl apply -f - <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: { name: kubevip, namespace: kube-system }
data:
  range-global: 10.0.64.1-10.0.64.99,fd00:10::4001-fd00:10::4063
YAML
run kubectl apply -f examples/01-expose/deployment.yaml
run kubectl --namespace kube-system rollout status daemonset/berth-announcer --timeout=120s
run kubectl --namespace kube-system rollout status statefulset/berth-ccm --timeout=120s
run kubectl rollout status deployment/hello --timeout=120s

say "5/5 An address"
run kubectl expose deployment hello --type=LoadBalancer --port=80 --target-port=8080 \
	--overrides='{"spec":{"ipFamilyPolicy":"RequireDualStack"}}'
run kubectl wait service/hello --for='jsonpath={.status.loadBalancer.ingress[1].ip}' --timeout=60s
run kubectl get service hello
read -r v4 v6 < <(kubectl get service hello -o 'jsonpath={.status.loadBalancer.ingress[0].ip} {.status.loadBalancer.ingress[1].ip}{"\n"}')
owner=$(kubectl get service hello -o 'jsonpath={.metadata.annotations.kube-vip\.io/vipHost}')
printf '\nThe addresses are %s and %s; %s holds them.\n' "$v4" "$v6" "$owner"
run $lab exec --name demo "$owner" -- ip -brief address show dev eth0
for host in "$v4" "[$v6]"; do
	run $lab exec --name demo client -- curl --silent --show-error --max-time 5 "http://$host/"
done

cat <<TEXT

The cluster stays up. Try next:
  export KUBECONFIG=$KUBECONFIG
  kubectl get ipaddresses -l ipaddress.kubernetes.io/managed-by=berth
  $lab exec --name demo client -- curl -s http://$v4/
  kubectl -n kube-system delete pod -l app.kubernetes.io/name=berth-announcer --field-selector spec.nodeName=$owner
and take it away with: make demo-down
TEXT
