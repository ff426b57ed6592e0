#!/bin/sh
# boot-guest CID QEMU-ARGUMENT...: a guest of this guest, until it ends. Its
# console becomes lines of ours, marked with its CID.
cid=$1
shift
{
	qemu-system-x86_64 "$@" -serial stdio -pidfile "/run/guest-$cid.pid" -device "vhost-vsock-pci,guest-cid=$cid" </dev/null 2>&1
	echo "QEMU's exit code is $?"
} | while IFS= read -r line; do echo "guest $cid: $line"; done
echo "guest $cid has ended"
