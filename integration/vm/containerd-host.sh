#!/bin/sh
# What a user of a host does: starts containerd, installs shimtrace, runs a container.
set -eu
case $1 in
up)
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	# The root of the processes is where files were unpacked, which nothing can pivot from.
	mkdir -p /var/lib /etc/containerd
	mount -t tmpfs lib /var/lib
	printf 'version = 3\ndisabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri", "io.containerd.nri.v1.nri"]\n' >/etc/containerd/config.toml
	/opt/shimtrace/shimtrace install
	containerd >/tmp/containerd.log 2>&1 &
	until ctr version >/dev/null 2>&1; do sleep 1; done
	ctr image import /images.tar
	;;
run)
	# As kubelet makes one for a pod with limits: 20 ms in 100 ms.
	mkdir -p /sys/fs/cgroup/kubepods/pod1
	echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
	echo +cpu >/sys/fs/cgroup/kubepods/cgroup.subtree_control
	echo '20000 100000' >/sys/fs/cgroup/kubepods/pod1/cpu.max
	ctr run --rm --no-pivot --cgroup /kubepods/pod1/c1 --runtime io.containerd.runc-traced.v2 localhost/busybox:test c1 echo hello
	;;
down)
	# Relays leave with their containers, and the guard after the last of them.
	while pgrep -f 'shimtrace-relay|-traced' >/dev/null; do sleep 1; done
	killall containerd
	;;
esac
