#!/bin/sh
# kubelet.service as kubeadm's packages have it (10-kubeadm.conf): started again whenever it ends (Restart=always), from when
# kubeadm has written what it goes by. `systemctl stop` leaves /run/kubelet.stopped.
while :; do
	if [ -e /var/lib/kubelet/config.yaml ] && [ ! -e /run/kubelet.stopped ]; then
		KUBELET_KUBEADM_ARGS=
		[ ! -e /var/lib/kubelet/kubeadm-flags.env ] || . /var/lib/kubelet/kubeadm-flags.env
		# Word splitting makes them arguments.
		# shellcheck disable=SC2086
		kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
			--kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS &
		echo $! >/run/kubelet.pid
		wait $!
		rm -f /run/kubelet.pid
	fi
	sleep 0.5
done
