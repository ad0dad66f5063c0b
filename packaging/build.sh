#!/usr/bin/env bash
# Makes the packages: build.sh --bin-dir DIR --out DIR [--fast]
#
#   --bin-dir  where shipwatch-agent, shipwatch-server and shipwatch were built
#   --out      where the .deb and .rpm files go
#   --fast     weak compression, for tests
#
# Needs dpkg-deb, rpmbuild, strip, readelf, node and cargo. The same binaries, sources and SOURCE_DATE_EPOCH (default: the last commit's
# time) give the same .deb bytes. SHIPWATCH_MAINTAINER ("Name <address>") names who answers for the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD

fail() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

bin_dir='' out='' fast=''
while [ $# -gt 0 ]; do
    case $1 in
        --bin-dir) bin_dir=${2:-} && shift 2 ;;
        --out) out=${2:-} && shift 2 ;;
        --fast) fast=yes && shift ;;
        *) fail "unknown argument $1; usage: build.sh --bin-dir DIR --out DIR [--fast]" ;;
    esac
done
if [ -z "$bin_dir" ] || [ -z "$out" ]; then fail "usage: build.sh --bin-dir DIR --out DIR [--fast]"; fi

# --- what must be there, all of it told at once
missing=()
for tool in dpkg-deb:dpkg rpmbuild:rpm strip:binutils readelf:binutils node:nodejs cargo:rust; do
    command -v "${tool%%:*}" >/dev/null 2>&1 || missing+=("${tool%%:*} (package ${tool##*:})")
done
for program in shipwatch-agent shipwatch-server shipwatch; do
    [ -x "$bin_dir/$program" ] || missing+=("$bin_dir/$program (cargo build --workspace --bins)")
done
[ -f packaging/rules/starter.yml ] || missing+=("packaging/rules/starter.yml")
if [ "${#missing[@]}" -gt 0 ]; then
    printf 'build.sh: missing: %s\n' "${missing[@]}" >&2
    exit 1
fi

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$version" ] || fail "Cargo.toml has no version in [workspace.package]"
# 1.0.0-rc.1 comes before 1.0.0: a tilde says so to both package managers.
version=${version/-/\~}
release=1
maintainer=${SHIPWATCH_MAINTAINER:-Shipwatch maintainers <maintainers@shipwatch.invalid>}
homepage=$(sed -n '/^\[workspace.package\]/,/^\[/s/^repository = "\(.*\)"$/\1/p' Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export LC_ALL=C TZ=UTC
machine=$(readelf -h "$bin_dir/shipwatch-agent" | sed -n 's/^ *Machine: *//p')
case $machine in
    *X86-64) deb_arch=amd64 rpm_arch=x86_64 ;;
    AArch64) deb_arch=arm64 rpm_arch=aarch64 ;;
    *) fail "no package architecture is known for the machine $machine" ;;
esac

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put() { install -D -m "$1" "packaging/$2" "$3"; }
gzipped() { gzip -9n >"$1" && chmod 644 "$1"; }

# --- one tree per package; both kinds of package are made of it
program() {
    install -D -m 755 "$bin_dir/$1" "$2/usr/bin/$1"
    strip --strip-unneeded --remove-section=.comment "$2/usr/bin/$1"
    # The programs write their own manual pages and completions, so they have to run here: no packages for a foreign machine.
    local made=$work/files/$1 page
    mkdir -p "$made"
    "$bin_dir/$1" package-files "$made" || fail "$1 could not write its manual pages"
    install -d -m 755 "$2/usr/share/man/man1"
    for page in "$made"/*.1; do gzipped "$2/usr/share/man/man1/${page##*/}.gz" <"$page"; done
    install -D -m 644 "$made/$1.bash" "$2/usr/share/bash-completion/completions/$1"
    install -D -m 644 "$made/_$1" "$2/usr/share/zsh/vendor-completions/_$1"
    install -D -m 644 "$made/$1.fish" "$2/usr/share/fish/vendor_completions.d/$1.fish"
}

stage_common() {
    local package=$1 tree=$2
    local doc=$tree/usr/share/doc/$package
    put 644 "systemd/$package.service" "$tree/usr/lib/systemd/system/$package.service"
    install -d -m 755 "$doc/docs/zh"
    install -m 644 README.md README.zh-CN.md "$doc/"
    install -m 644 docs/*.md "$doc/docs/"
    install -m 644 docs/zh/*.md "$doc/docs/zh/"
    gzipped "$doc/changelog.gz" <CHANGELOG.md
    # Libraries under MIT, BSD and the like ask that their texts go with the program.
    node packaging/licences.mjs "$package" "${@:3}" >"$work/third-party.txt" || fail "the libraries' licences could not be collected"
    gzipped "$doc/third-party.txt.gz" <"$work/third-party.txt"
}

stage_agent() {
    local tree=$1
    program shipwatch-agent "$tree"
    stage_common shipwatch-agent "$tree"
    put 640 agent.toml "$tree/etc/shipwatch/agent.toml"
    put 644 policy.toml "$tree/etc/shipwatch/policy.toml"
    put 644 systemd/telemetry-only.conf "$tree/usr/share/doc/shipwatch-agent/examples/telemetry-only.conf"
}

stage_server() {
    local tree=$1
    program shipwatch-server "$tree"
    program shipwatch "$tree"
    stage_common shipwatch-server "$tree" server/web/node_modules
    put 640 server.toml "$tree/etc/shipwatch/server.toml"
    put 644 rules/starter.yml "$tree/etc/shipwatch/rules/starter.yml"
}

same_times() { find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

# --- deb
# The oldest glibc that has every symbol the programs use, and the other libraries they name.
deb_depends() {
    local tree=$1 needed glibc
    needed=$(readelf -d "$tree"/usr/bin/* | sed -n 's/.*Shared library: \[\(.*\)\]/\1/p' | sort -u)
    glibc=$(readelf -V "$tree"/usr/bin/* | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -1)
    printf 'libc6 (>= %s)' "${glibc#GLIBC_}"
    for library in $needed; do
        case $library in
            libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | ld-linux-*) ;;
            libgcc_s.so.1) printf ', libgcc-s1' ;;
            *) fail "the programs need $library, for which deb_depends names no package" ;;
        esac
    done
}

copyright() {
    cat <<TEXT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Shipwatch
Source: $homepage

Files: *
Copyright: $(date --date="@$SOURCE_DATE_EPOCH" +%Y) the Shipwatch contributors
License: Apache-2.0
 On Debian systems the text of this licence is in /usr/share/common-licenses/Apache-2.0.
Comment:
 The programs contain libraries of other authors under licences that permit this; third-party.txt.gz beside this file
 names each with its version, its licence and that licence's text.
TEXT
}

deb_changelog() {
    cat <<TEXT
$1 ($version-$release) unstable; urgency=medium

  * Version $version; what changed is in changelog.gz.

 -- $maintainer  $(date -R --date="@$SOURCE_DATE_EPOCH")
TEXT
}

deb() {
    local package=$1 summary=$2 text=$3 depends=$4 tree=$work/deb/$1
    mkdir -p "$work/deb" && cp -a "$work/tree/$package" "$tree"
    copyright >"$tree/usr/share/doc/$package/copyright"
    deb_changelog "$package" | gzipped "$tree/usr/share/doc/$package/changelog.Debian.gz"
    # What Debian's checker would complain about on purpose.
    [ ! -f "packaging/deb/$package.lintian-overrides" ] ||
        put 644 "deb/$package.lintian-overrides" "$tree/usr/share/lintian/overrides/$package"
    local size
    size=$(du -k --apparent-size -s "$tree" | cut -f 1)
    mkdir "$tree/DEBIAN"
    {
        printf 'Package: %s\nVersion: %s-%s\nArchitecture: %s\n' "$package" "$version" "$release" "$deb_arch"
        printf 'Maintainer: %s\nInstalled-Size: %s\nSection: admin\nPriority: optional\n' "$maintainer" "$size"
        printf 'Homepage: %s\nPre-Depends: init-system-helpers (>= 1.54~)\n' "$homepage"
        printf 'Depends: %s%s\nRecommends: ca-certificates, tzdata\n' "$(deb_depends "$tree")" "$depends"
        printf 'Description: %s\n' "$summary"
        fold -s -w 76 <<<"$text" | sed 's/ *$//; s/^/ /'
    } >"$tree/DEBIAN/control"
    (cd "$tree" && find etc -type f | sort | sed 's|^|/|') >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    for script in postinst prerm postrm; do put 755 "deb/$package.$script" "$tree/DEBIAN/$script"; done
    chmod 644 "$tree"/DEBIAN/{control,conffiles,md5sums}
    same_times "$tree"
    local compression=(-Zxz -z6)
    [ -z "$fast" ] || compression=(-Zgzip -z1)
    dpkg-deb --root-owner-group "${compression[@]}" --build "$tree" "$out/${package}_$version-${release}_$deb_arch.deb" >/dev/null
}

# --- rpm
rpm() {
    local payload=w19.zstdio package
    [ -z "$fast" ] || payload=w1.gzdio
    same_times "$work/tree"
    mkdir -p "$work/lists"
    for package in shipwatch-agent shipwatch-server; do
        # Where zsh looks is the one place that differs.
        (cd "$work/tree/$package" && find usr/share/man usr/share/*/*completions* -type f | sort |
            sed -e 's|^|/|' -e 's|zsh/vendor-completions|zsh/site-functions|') >"$work/lists/$package"
    done
    rpmbuild -bb --quiet --target "$rpm_arch" packaging/rpm/shipwatch.spec \
        --define "_topdir $work/rpm" --define "_rpmdir $work/rpms" --define "_binary_payload $payload" \
        --define "version_ $version" --define "release_ $release" --define "homepage $homepage" \
        --define "packager $maintainer" --define "tree $work/tree" --define "lists $work/lists" --define "top $top" >"$work/rpm.log" 2>&1 ||
        { cat "$work/rpm.log" >&2 && fail "rpmbuild failed"; }
    cp "$work/rpms/$rpm_arch"/*.rpm "$out/"
}

umask 022
stage_agent "$work/tree/shipwatch-agent"
stage_server "$work/tree/shipwatch-server"
deb shipwatch-agent "Shipwatch agent: metrics, masked logs and deployments of this host" \
    "One light process per host. It collects CPU, memory, disk and network figures, follows log files and masks personal data in them before they leave the host, and carries out deployments that the host's own policy permits. It talks to shipwatch-server over QUIC with mutual TLS." \
    ""
deb shipwatch-server "Shipwatch server: series, logs, alerts, deployments, dashboard" \
    "Stores what the agents send, answers PromQL and log searches, evaluates alert rules and tells people, and rolls deployments out. One process with one data directory. Contains the dashboard and the command line program shipwatch." \
    ", passwd"
rpm
ls -1 "$out"
