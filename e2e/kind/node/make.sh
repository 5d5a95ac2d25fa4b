#!/bin/bash
# Makes the root file system of a kind node in ROOT, out of Debian's packages and of programs that are built already, as
# kind's images/base/Dockerfile and `kind build node-image` do. Debian 12 on any machine: the systemd of later ones knows
# no cgroup 1, and this one knows both.
#
#   KIND        the folder of kind's source
#   KUBERNETES  the folder of the Kubernetes programs
#   KUBEADM     the folder of kubeadm
#   VERSION     the version of both
#   IMAGES      the folder of the images that kubeadm runs
#   SANDBOX     the image of sandboxes, one of these
set -euo pipefail
root=$1
here=$(dirname "$0")

packages=systemd,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,e2fsprogs,bash,ca-certificates,curl
packages+=,jq,procps,libseccomp2,containerd,runc,containernetworking-plugins
debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$root.log" 2>&1 || {
	tail -n 40 "$root.log" >&2
	exit 1
}
rm -rf "$root.log" "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale,info}

files=$KIND/images/base/files
install -D -t "$root/usr/local/bin" "$files"/usr/local/bin/entrypoint
install -D -t "$root/kind/bin" "$files"/kind/bin/*
(cd "$files/etc" && find . -type f -exec install -D --mode=644 {} "$root/etc/{}" \;)
rm -f "$root"/usr/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
	"$root"/usr/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
	"$root"/usr/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
ln -s /usr/lib/systemd/systemd "$root/sbin/init"
ln -s /usr/bin/containerd "$root/usr/local/bin/containerd"
mkdir -p "$root/opt/cni" "$root/etc/kubernetes/manifests" "$root/kind/images" "$root/kind/manifests"
ln -s /usr/lib/cni "$root/opt/cni/bin"
# Where root lacks CAP_SYS_RESOURCE no sandbox could lower its score, and none would start.
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true\n  disable_apparmor = true/' \
	-e "s|^\( *sandbox_image = \).*|\1\"$SANDBOX\"|" "$root/etc/containerd/config.toml"
chroot "$root" ctr oci spec |
	jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
		>"$root/etc/containerd/cri-base.json"

install -t "$root/usr/bin" "$KUBERNETES/kubelet" "$KUBERNETES/kubectl" "$KUBEADM/kubeadm"
echo "$VERSION" >"$root/kind/version"
cp "$IMAGES"/*.tar "$root/kind/images/"
install -t "$root/kind/bin" "$here"/import-images.sh "$here"/pod-network.sh
install --mode=644 -t "$root/etc/systemd/system" "$here"/*.service
install --mode=644 "$here/pod-network.yaml" "$root/kind/manifests/default-cni.yaml"
chroot "$root" systemctl --quiet enable kubelet containerd undo-mount-hacks import-images pod-network
chroot "$root" systemctl --quiet mask systemd-binfmt
