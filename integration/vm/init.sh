#!/bin/busybox sh
# The first process of a guest. It loads the modules in the order of their names,
# runs the services and, for as long as the guest lives, each line that arrives on
# the second serial port, and answers with its exit code and output.
/bin/busybox --install -s /bin
export PATH=/usr/local/bin:/bin:/usr/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in /lib/modules/*.ko; do
	insmod "$module" || echo "init: cannot load $module"
done

# Runs commands in a process of its own: busybox's read forgets what it has read of
# a line when a child ends, and all orphans end as children of the first process.
control() {
	while IFS= read -r command; do
		sh -c "$command" </dev/null >/tmp/.output 2>&1
		code=$?
		echo "$code $(wc -c </tmp/.output)"
		cat /tmp/.output
	done
}
if stty -F /dev/ttyS1 raw -echo 2>/dev/null; then # a guest in a guest has no such port
	exec 3<>/dev/ttyS1 # opened here: that drops what has come before
	control <&3 >&3 3<&- &
	exec 3<&-
fi
. /etc/services
echo "init: up"
while :; do sleep 1000; done
