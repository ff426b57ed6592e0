#!/bin/sh
# After the programs have gone: dpkg says remove or purge, rpm 0 (removal) or 1 (update).
# rpm knows no purge: traces and configuration stay there.
set -e
if [ "$1" = purge ]; then
	rm -rf /var/lib/shimtrace /run/shimtrace
	rmdir /etc/shimtrace 2>/dev/null || true
fi
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload >/dev/null 2>&1 || true
fi
