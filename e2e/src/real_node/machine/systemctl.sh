#!/bin/sh
# What kubeadm asks of systemd, on a machine without it: that kubelet starts, stops, and runs. kubelet.sh beside it is the
# unit.
case $1 in
start | restart)
	rm -f /run/kubelet.stopped
	[ "$1" = start ] || [ ! -e /run/kubelet.pid ] || kill "$(cat /run/kubelet.pid)" 2>/dev/null
	;;
stop)
	touch /run/kubelet.stopped
	while [ -e /run/kubelet.pid ]; do
		kill "$(cat /run/kubelet.pid)" 2>/dev/null
		sleep 0.1
	done
	;;
is-active)
	# Between two starts systemd says so, too.
	[ -e /run/kubelet.stopped ] && { echo inactive; exit 3; }
	echo active
	;;
status) echo "Loaded: loaded" ;;
esac
exit 0
