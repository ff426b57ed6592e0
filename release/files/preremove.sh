#!/bin/sh
# Before the programs go: dpkg says remove or upgrade, rpm 0 (removal) or 1 (update).
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
# What shimtrace install wrote, in containerd's and Kata's configurations. It refuses while
# traced containers run: containerd needs the shim to end them.
code=0
/usr/bin/shimtrace install --uninstall || code=$?
[ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
if [ -d /run/systemd/system ]; then
	systemctl disable --now shimtrace-collect.service shimtrace-forward.service >/dev/null 2>&1 || true
fi
