#!/bin/sh
# On a node: takes off these addresses wherever another announcer than Berth has left them.
#   left-on-node.sh 192.0.2.10 2001:db8::10
# What Berth has bound is deprecated, and stays.
set -eu
for vip; do
	ip -o address show to "$vip" | grep -v -w deprecated | while read -r _ interface _ found _; do
		ip address del "$found" dev "$interface"
	done
done
