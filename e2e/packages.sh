#!/bin/sh
# Installs the Debian packages that the tests and the lab need and the machine lacks. Says nothing if it lacks none,
# and starts no daemon. Arguments name more programs.
set -eu
PATH=$PATH:/usr/sbin:/sbin

missing=
need() {
	command -v "$1" >/dev/null || missing="$missing $2"
}
need ip iproute2
need iptables iptables
need nft nftables
need ipset ipset
need ipvsadm ipvsadm
need conntrack conntrack
need tcpdump tcpdump
need arping arping
need ping iputils-ping
need curl curl
need sysctl procps
need setpriv util-linux
need cc gcc
need faketime faketime
need bird bird2
need vtysh frr
need strip binutils
# The headers that cc needs come apart from it.
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
for program; do
	case $program in
	qemu-system-x86_64) need "$program" qemu-system-x86 ;;
	*) need "$program" "$program" ;;
	esac
done
[ -n "$missing" ] || exit 0

[ "$(id -u)" = 0 ] || { echo "packages: must run as root to install:$missing" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "packages: no apt-get here; install what gives:$missing" >&2; exit 1; }
echo "packages: installing$missing"

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
mine=
cleanup() {
	rm -f "$log"
	[ -z "$mine" ] || rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
# invoke-rc.d(8): 101 forbids every action on a service.
if [ ! -e "$policy" ]; then
	mine=yes
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
install() {
	# Word splitting is what makes the list a list.
	# shellcheck disable=SC2086
	apt-get install --yes --no-install-recommends -o DPkg::Lock::Timeout=300 $missing >"$log" 2>&1
}
# The package lists of a new machine may be absent or old: then, and only then, they are fetched.
install || { apt-get update >"$log" 2>&1 && install; } || {
	cat "$log" >&2
	echo "packages: could not install$missing" >&2
	exit 1
}
