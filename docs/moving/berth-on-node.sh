#!/bin/sh
# On a node: shows what announcers of Berth have there, and ends with 1 if there is anything. `berth-announcer sweep` removes what
# one has left that was killed. An empty qdisc (clsact) is nothing of theirs.
PATH=$PATH:/usr/sbin:/sbin
# Addresses, routes and rules have the number of their instance (190 to 247) as their protocol. Linux before 5.18 has none for an
# address, and an older `ip` shows none: but what Berth binds is deprecated, and only for a while. Names are what packages of the
# host say (FRR's calls 190 `ripng`), so `ip` is asked for numbers.
number='(0x(be|bf|[cde][0-9a-f]|f[0-7])|19[0-9]|2[0-3][0-9]|24[0-7])'
found=$(
	if ip -N -d -o address show dev lo | grep -q ' proto '; then
		ip -N -d -o address show | grep -E " proto $number "
	else
		ip -o address show | grep -E '/(32|128) .* deprecated( [a-z]+)* dynamic '
	fi
	for family in -4 -6; do
		ip -N $family route show table all
		ip -N $family rule show
	done 2>/dev/null | grep -E " proto $number( |\$)"
	nft list tables 2>/dev/null | grep -w -E 'berth|berth-[a-z0-9-]+'
	for link in $(ls /sys/class/net); do
		tc filter show dev "$link" egress 2>/dev/null | grep berth-fence | sed "s/^/$link: /"
	done
	true
)
[ -z "$found" ] || { printf '%s\n' "$found"; exit 1; }
