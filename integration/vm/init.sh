#!/bin/busybox sh
# The first process of a guest. It loads the modules in the order of their names,
# runs the services and then, for as long as the guest lives, each line that
# arrives on the second serial port, and answers with its exit code and output.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in /lib/modules/*.ko; do
	insmod "$module" || echo "init: cannot load $module"
done
if stty -F /dev/ttyS1 raw -echo 2>/dev/null; then
	exec 3<>/dev/ttyS1
else # a guest in a guest has no second port
	mkfifo /run/nothing
	exec 3<>/run/nothing
fi
. /etc/services
echo "init: up"
while IFS= read -r command <&3; do
	sh -c "$command" >/tmp/.output 2>&1 </dev/null 3<&-
	code=$?
	{
		echo "$code $(wc -c </tmp/.output)"
		cat /tmp/.output
	} >&3
done
