#!/bin/sh
# On a node: takes off these addresses wherever another announcer than Berth has left them.
#   left-on-node.sh 192.0.2.10 2001:db8::10
# What Berth has bound is deprecated, and for a while alone (`dynamic`), and stays; kube-vip's may be deprecated, and is for ever. What
# has a subnet stays too, and is named: that may be the node's own address, which somebody has asked for.
set -eu
[ $# -gt 0 ] || { echo 'left-on-node.sh: no address: left-on-node.sh 192.0.2.10 2001:db8::10' >&2; exit 2; }
for vip; do
	case $vip in
	*[!0-9A-Fa-f.:]* | '') echo "left-on-node.sh: $vip: accepted are addresses, without a subnet" >&2; exit 2 ;;
	esac
done
for vip; do
	left=$(ip -o address show to "$vip")
	printf '%s\n' "$left" | grep -v -E ' deprecated( [a-z]+)* dynamic ' | while read -r _ interface _ found _; do
		case $found in
		'') ;;
		*.*/32 | *:*/128) ip address del "$found" dev "$interface" ;;
		*) echo "$found on $interface stays: if it is not the node's own, ip address del $found dev $interface" >&2 ;;
		esac
	done
done
