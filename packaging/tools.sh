#!/usr/bin/env bash
# Programs that lint and tests use beside Rust and Node. As root on Debian they are installed; else it is said how.
set -euo pipefail
missing=()
need() { # PROGRAM PACKAGE
    # sbin is not in every PATH, but the programs there are.
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need shellcheck shellcheck        # make lint
need prometheus prometheus        # PromQL is compared with it
need victoria-metrics victoria-metrics   # remote write and read are tried with it
need vmagent victoria-metrics
need rsyslogd rsyslog             # log lines from others
[ -e "/usr/lib/$(uname -m)-linux-gnu/rsyslog/omelasticsearch.so" ] || missing+=(rsyslog-elasticsearch)
need chromium chromium            # the dashboard in a browser
[ -n "$(fc-list :lang=zh 2>/dev/null | head -n 1)" ] || missing+=(fontconfig fonts-noto-cjk)
need dpkg-deb dpkg                # packages
need rpmbuild rpm
need strip binutils
need debootstrap debootstrap      # a root to install them into
need ip iproute2
need systemd-analyze systemd      # their units
need journalctl systemd           # journal and syslog are read from the real programs
need logger bsdutils
need rsyslogd rsyslog
[ -x /lib/systemd/systemd-journal-remote ] || missing+=(systemd-journal-remote)
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "the tests need: ${missing[*]}" >&2
    echo "on Debian or Ubuntu: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
echo "installing what the tests need: ${missing[*]}"
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
