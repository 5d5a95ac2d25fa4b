#!/bin/bash
# Runs in a kind node, in place of kindnetd: tells the CNI plugins which networks the node's pods are in, and has a route
# to those of every other node, as the API server names them. Ends when the API server does not answer; systemd repeats it.
set -euo pipefail
template='{{.metadata.name}}{{range .spec.podCIDRs}} {{.}}{{else}} - -{{end}}'
template+='{{range .status.addresses}}{{if eq .type "InternalIP"}} {{.address}}{{end}}{{end}}{{"\n"}}'
kubectl --kubeconfig=/etc/kubernetes/kubelet.conf get nodes --watch --output=go-template="$template" |
	while read -r node pods4 pods6 address4 address6; do
		if [ -z "$address6" ] || [ "$pods4" = - ]; then
			continue
		fi
		if [ "$node" != "$(hostname)" ]; then
			ip route replace "$pods4" via "$address4"
			ip -6 route replace "$pods6" via "$address6"
			continue
		fi
		jq --null-input --arg v4 "$pods4" --arg v6 "$pods6" '{cniVersion: "0.3.1", name: "pods", plugins: [
			{type: "ptp", ipMasq: false, ipam: {type: "host-local", dataDir: "/run/cni-addresses",
				routes: [{dst: "0.0.0.0/0"}, {dst: "::/0"}], ranges: [[{subnet: $v4}], [{subnet: $v6}]]}},
			{type: "portmap", capabilities: {portMappings: true}}]}' >/run/pods.conflist
		mkdir -p /etc/cni/net.d
		# Never to be read half written.
		cp /run/pods.conflist /etc/cni/net.d/.pods.conflist
		mv /etc/cni/net.d/.pods.conflist /etc/cni/net.d/10-pods.conflist
	done
