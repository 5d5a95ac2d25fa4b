#!/bin/sh
# Gives a node a root file system of its own. Runs once per boot, below the node's first process and inside its
# namespaces, before containerd and kubelet. Nothing done here is seen outside the node's mount namespace, and all of
# it is gone with the node's last process.
#
# Environment:
#   NODE_DIR  the node's folder: etc/ lies over the host's /etc; containerd/, kubelet/ and pods/ are its disks, and
#             kubernetes/ and etcd/ where kubeadm makes a node of it
#   SHARED    folders that the node sees under their own names, one a line: the lab's, kubelet's, containerd's
set -eu

root=$NODE_DIR/root

# The host's programs read only, and a new file system for whatever is written.
mkdir -p "$root"
mount -t tmpfs -o mode=755 root "$root"
for name in bin sbin lib lib32 lib64 libx32 usr; do
	if [ -L "/$name" ]; then
		cp -P "/$name" "$root/$name"
	elif [ -d "/$name" ]; then
		mkdir "$root/$name"
		mount --rbind "/$name" "$root/$name"
		mount -o remount,bind,ro "$root/$name"
	fi
done
cd "$root"
mkdir -p .old proc sys dev run tmp root mnt etc .etc/work
chmod 1777 tmp

# The host's configuration under the node's. The upper layer is in memory, so it may lie over any file system.
cp -a "$NODE_DIR/etc" .etc/upper
mount -t overlay -o "lowerdir=/etc,upperdir=$root/.etc/upper,workdir=$root/.etc/work" etc etc

# The disks. Plain folders: an overlay cannot carry containerd's overlays.
mkdir -p var/lib/containerd var/lib/kubelet var/log/pods var/tmp
ln -s /run var/run
mount --bind "$NODE_DIR/containerd" var/lib/containerd
mount --bind "$NODE_DIR/kubelet" var/lib/kubelet
mount --bind "$NODE_DIR/pods" var/log/pods

if [ -d "$NODE_DIR/kubernetes" ]; then
	mkdir -p etc/kubernetes var/lib/etcd .usr/upper .usr/work
	mount --bind "$NODE_DIR/kubernetes" etc/kubernetes
	mount --bind "$NODE_DIR/etcd" var/lib/etcd
	# Pods that kubeadm makes have folders in there that are made where they are not, for modules and plugins.
	mount -t overlay -o "lowerdir=/usr,upperdir=$root/.usr/upper,workdir=$root/.usr/work" usr usr
fi

echo "$SHARED" | while read -r folder; do
	mkdir -p "$root$folder"
	mount --rbind "$folder" "$root$folder"
done
# The lab's folder brought a picture of this very root along.
umount --recursive --lazy "$root$root"

mount --rbind /dev dev
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
mount --rbind /proc proc
mount --rbind /sys sys

# The node's own cgroup is the root of every hierarchy, as a machine sees it.
if [ "$(cat /proc/self/cgroup)" = 0::/ ]; then
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	# A cgroup either holds processes or hands controllers down: what runs so far steps aside.
	mkdir sys/fs/cgroup/init
	for pid in $(cat sys/fs/cgroup/cgroup.procs); do
		# What has ended meanwhile need not move.
		echo "$pid" >sys/fs/cgroup/init/cgroup.procs 2>/dev/null || ! kill -0 "$pid" 2>/dev/null
	done
	for controller in $(cat sys/fs/cgroup/cgroup.controllers); do
		echo "+$controller" >sys/fs/cgroup/cgroup.subtree_control
	done
else
	mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
	while IFS=: read -r _ controllers _; do
		case $controllers in
		'') continue ;; # the unified hierarchy beside the old ones: it has no controllers
		name=*) folder=${controllers#name=} options=none,$controllers ;;
		*) folder=$controllers options=$controllers ;;
		esac
		mkdir "sys/fs/cgroup/$folder"
		mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/$folder"
	done </proc/self/cgroup
fi

pivot_root . .old
umount -l /.old
rmdir /.old
# Pods may ask for mounts to propagate, which needs a shared tree.
mount --make-rshared /
