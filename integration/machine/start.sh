#!/bin/sh
# Starts systemd as the first process of namespaces of its own, on this machine's files,
# copied on write. $1 is an empty directory to mount on, $2 the name of its cgroups, $3 the
# directory of the sources.
set -eu
dir=$1 name=$2 sources=$3
if [ "${4:-}" = "" ]; then
	# In every hierarchy a cgroup, which is the root of those inside.
	for h in /sys/fs/cgroup /sys/fs/cgroup/*; do
		[ -e "$h/cgroup.procs" ] || continue
		mkdir "$h/$name"
		for f in cpuset.cpus cpuset.mems; do
			[ ! -e "$h/$name/$f" ] || cat "$h/$f" >"$h/$name/$f"
		done
		echo $$ >"$h/$name/cgroup.procs"
	done
	exec unshare --mount --pid --fork --kill-child --ipc --uts --net --cgroup "$0" "$dir" "$name" "$sources" inside
fi

mount --make-rprivate /
mount -t tmpfs -o mode=755 machine "$dir"
mkdir "$dir/changed" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=/,upperdir=$dir/changed,workdir=$dir/work" machine "$dir/root"
cd "$dir/root"
# Not this machine's own.
rm -rf etc/containerd etc/shimtrace var/lib/shimtrace usr/local/bin/*containerd-shim-* usr/local/bin/shimtrace*
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
case $sources in
/tmp/*)
	mkdir -p "$dir/sources" "$dir/work-sources" ".$sources"
	mount -t overlay -o "lowerdir=$sources,upperdir=$dir/sources,workdir=$dir/work-sources" sources ".$sources"
	;;
esac
# containerd makes overlays, for which an overlay is no place.
for d in var/lib/containerd var/lib/nerdctl var/lib/cni var/log; do
	mkdir -p "$d"
	mount -t tmpfs -o mode=755 machine "$d"
done
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in null zero full random urandom tty fuse; do
	[ -e "/dev/$node" ] || continue
	: >"dev/$node"
	mount --bind "/dev/$node" "dev/$node"
done
if [ -e /sys/fs/cgroup/cgroup.procs ]; then
	mount -t cgroup2 cgroup sys/fs/cgroup
else
	mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
	for h in $(cut -d: -f2 /proc/self/cgroup); do
		mkdir "sys/fs/cgroup/${h#name=}"
		case $h in
		name=*) mount -t cgroup -o "none,$h" cgroup "sys/fs/cgroup/${h#name=}" ;;
		*) mount -t cgroup -o "$h" cgroup "sys/fs/cgroup/$h" ;;
		esac
	done
fi
ip link set lo up
hostname machine
mkdir -p run/systemd/system
printf '[Unit]\nDefaultDependencies=no\n' >run/systemd/system/machine.target
exec chroot . /usr/bin/env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=machine.target --log-target=null --show-status=no
