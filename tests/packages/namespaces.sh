#!/usr/bin/env bash
# The part of the packages' test that runs in namespaces of its own, where run.sh starts it: namespaces.sh ROOT VERSION
set -euo pipefail
root=$1 version=$2

inside() { chroot "$root" /bin/bash /packages/inside.sh "$1" "$version"; }
# Debian's rpm complains about being used at all; what it says matters only when it fails.
quietly() { "$@" >"$root/packages/rpm.log" 2>&1 || { cat "$root/packages/rpm.log" >&2 && return 1; }; }
# --nodeps: the root's own packages are not in rpm's database.
in_root() { quietly rpm --root "$root" --dbpath /var/lib/rpm --nodeps "$@"; }

hostname packages-test
ip link set lo up
mount -t proc proc "$root/proc"

inside deb
in_root -i --test "$root"/packages/*.rpm
in_root -i "$root"/packages/*.rpm
inside rpm-installed
in_root -U --replacepkgs "$root"/packages/*.rpm
inside rpm-upgraded
in_root -e shipwatch-agent shipwatch-server
inside rpm-removed
