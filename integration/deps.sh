#!/bin/sh
# The Debian packages that the integration tests and the demo need. Does nothing
# where they are installed.
set -eu
need="gcc libc6-dev pkg-config libseccomp-dev busybox-static e2fsprogs mount iproute2 iptables containernetworking-plugins dbus-daemon git qemu-system-x86 chromium-headless-shell openjdk-17-jre-headless maven rpm zsh fish"
missing=
for p in $need; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "missing Debian packages:$missing (run as root to have them installed)" >&2; exit 1; }
echo "installing Debian packages:$missing"
apt-get update -q
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
