#!/usr/bin/env bash
# Programs that the tests use beside Rust and Node. As root on Debian they are installed; else it is said how.
set -euo pipefail
missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need chromium chromium
need debootstrap debootstrap
need rpmbuild rpm
need promtool prometheus
need prometheus-node-exporter prometheus-node-exporter
if [ "${#missing[@]}" -gt 0 ] && [ "$(fc-list :lang=zh 2>/dev/null | head -1)" = "" ]; then missing+=(fonts-noto-cjk); fi
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "the tests need: ${missing[*]}" >&2
    echo "on Debian or Ubuntu: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
# Packages must not start their services on a machine that only runs tests.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
