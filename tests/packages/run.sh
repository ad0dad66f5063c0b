#!/usr/bin/env bash
# The packages: builds them from debug binaries, checks what is in them, installs them into a small Debian root of this
# machine's own release and runs the programs there, removes and purges them. run.sh [BIN_DIR]
#
# Needs root (chroot and namespaces). The root is fetched once by debootstrap and kept as a tar file in target/. The programs
# run in namespaces of their own: no port of this machine is used, and no process or mount outlives the test.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-target/debug}
started=$SECONDS

say() { printf 'packages: %3d s  %s\n' $((SECONDS - started)) "$*"; }
fail() {
    printf 'packages: FAILED: %s\n' "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "this test installs packages into a root of its own and needs root: sudo tests/packages/run.sh"
missing=()
for tool in dpkg-deb:dpkg rpmbuild:rpm rpm:rpm debootstrap:debootstrap unshare:util-linux ip:iproute2 strip:binutils; do
    command -v "${tool%%:*}" >/dev/null 2>&1 || missing+=("${tool##*:}")
done
[ "${#missing[@]}" -eq 0 ] || fail "these packages are missing: ${missing[*]} (packaging/tools.sh installs them on Debian)"

work=$(mktemp -d)
inner=''
finish() {
    # Ends everything in the namespaces with it; their mounts are gone then.
    if [ -n "$inner" ] && kill -KILL "$inner" 2>/dev/null; then wait "$inner" 2>/dev/null || true; fi
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- build
mkdir -p "$work/out" "$work/again"
packaging/build.sh --bin-dir "$bin" --out "$work/out" --fast >/dev/null
packaging/build.sh --bin-dir "$bin" --out "$work/again" --fast >/dev/null
for deb in "$work"/out/*.deb; do
    cmp -s "$deb" "$work/again/${deb##*/}" || fail "two builds of the same sources gave different bytes: ${deb##*/}"
done
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
agent_deb=("$work"/out/shipwatch-agent_*.deb) server_deb=("$work"/out/shipwatch-server_*.deb)
agent_rpm=("$work"/out/shipwatch-agent-*.rpm) server_rpm=("$work"/out/shipwatch-server-*.rpm)
for file in "${agent_deb[0]}" "${server_deb[0]}" "${agent_rpm[0]}" "${server_rpm[0]}"; do
    [ -s "$file" ] || fail "the build made no ${file##*/}"
done
say "built twice, the debs are the same bytes"

# --- contents
same() { # WHAT EXPECTED FOUND
    diff -u --label "expected: $1" --label "found: $1" <(printf '%s\n' "$2") <(printf '%s\n' "$3") >&2 || fail "$1 is not as expected"
}

deb_files() { dpkg-deb -c "$1" | awk '$1 !~ /^d/ { print $1, $2, $6 }' | grep -v -e /usr/share/doc/ -e /usr/share/man/ | sort -k 3; }
same "files of the agent's deb" "-rw-r----- root/root ./etc/shipwatch/agent.toml
-rw-r--r-- root/root ./etc/shipwatch/policy.toml
-rwxr-xr-x root/root ./usr/bin/shipwatch-agent
-rw-r--r-- root/root ./usr/lib/systemd/system/shipwatch-agent.service
-rw-r--r-- root/root ./usr/share/bash-completion/completions/shipwatch-agent
-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/shipwatch-agent.fish
-rw-r--r-- root/root ./usr/share/lintian/overrides/shipwatch-agent
-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_shipwatch-agent" "$(deb_files "${agent_deb[0]}")"
same "files of the server's deb" "-rw-r--r-- root/root ./etc/shipwatch/rules/starter.yml
-rw-r----- root/root ./etc/shipwatch/server.toml
-rwxr-xr-x root/root ./usr/bin/shipwatch
-rwxr-xr-x root/root ./usr/bin/shipwatch-server
-rw-r--r-- root/root ./usr/lib/systemd/system/shipwatch-server.service
-rw-r--r-- root/root ./usr/share/bash-completion/completions/shipwatch
-rw-r--r-- root/root ./usr/share/bash-completion/completions/shipwatch-server
-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/shipwatch-server.fish
-rw-r--r-- root/root ./usr/share/fish/vendor_completions.d/shipwatch.fish
-rw-r--r-- root/root ./usr/share/lintian/overrides/shipwatch-server
-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_shipwatch
-rw-r--r-- root/root ./usr/share/zsh/vendor-completions/_shipwatch-server" "$(deb_files "${server_deb[0]}")"
same "conffiles of the agent" "/etc/shipwatch/agent.toml
/etc/shipwatch/policy.toml" "$(dpkg-deb -I "${agent_deb[0]}" conffiles)"
same "conffiles of the server" "/etc/shipwatch/rules/starter.yml
/etc/shipwatch/server.toml" "$(dpkg-deb -I "${server_deb[0]}" conffiles)"
for deb in "${agent_deb[0]}" "${server_deb[0]}"; do
    list=$(dpkg-deb -c "$deb")
    for file in copyright changelog.gz changelog.Debian.gz third-party.txt.gz README.md README.zh-CN.md docs/install.md docs/zh/install.md; do
        grep -q "/usr/share/doc/[a-z-]*/$file$" <<<"$list" || fail "${deb##*/} has no $file"
    done
    mapfile -t programs < <(grep -o '[.]/usr/bin/[a-z-]\+' <<<"$list")
    for program in "${programs[@]}"; do
        grep -q "/usr/share/man/man1/${program##*/}[.]1[.]gz$" <<<"$list" || fail "${deb##*/} has no manual page of ${program##*/}"
    done
    [ "$(dpkg-deb -f "$deb" Version)" = "$version-1" ] || fail "${deb##*/} has version $(dpkg-deb -f "$deb" Version), Cargo.toml $version"
done

# In a deb only: what Debian's policy asks for. In an rpm only: the licence's text and the state directories. zsh looks elsewhere.
comparable() { sed -e 's|^\./|/|' -e 's|zsh/vendor-completions|zsh/site-functions|' | grep -v -e /copyright$ -e changelog.Debian -e /usr/share/lintian -e /usr/share/licenses -e ^/var/lib | sort; }
for package in agent server; do
    deb=$(echo "$work/out/shipwatch-${package}_"*.deb) rpm=$(echo "$work/out/shipwatch-$package-"*.rpm)
    same "files of the $package's rpm against its deb" "$(dpkg-deb -c "$deb" | awk '$1 !~ /^d/ { print $6 }' | comparable)" \
        "$(rpm -qp --qf '[%{FILEMODES:perms} %{FILENAMES}\n]' "$rpm" | awk '$1 !~ /^d/ { print $2 }' | comparable)"
    same "configuration files of the $package's rpm" "$(dpkg-deb -I "$deb" conffiles)" "$(rpm -qp --configfiles "$rpm" | sort)"
    kept=$(rpm -qp --qf '[%{FILEFLAGS:fflags} %{FILENAMES}\n]' "$rpm" | awk '$2 ~ "^/etc/shipwatch/.*[.]" { print $1 }' | sort -u)
    [ "$kept" = cn ] || fail "the $package's rpm would overwrite changed configuration (flags $kept, not cn)"
    for script in PREIN POSTIN PREUN POSTUN; do
        rpm -qp --qf "%{$script}" "$rpm" | sed 's/^(none)$//' | sh -n || fail "script $script of the $package's rpm is not a shell script"
    done
    [ "$(rpm -qp --qf '%{VERSION}' "$rpm")" = "$version" ] || fail "the $package's rpm has another version than Cargo.toml"
done
say "contents of debs and rpms are as expected"

# --- units
if command -v systemd-analyze >/dev/null 2>&1; then
    for unit in shipwatch-server shipwatch-agent; do
        # The programs are not installed here; all else is checked as it is.
        sed 's|^ExecStart=/usr/bin/[a-z-]*|ExecStart=/bin/true|' "packaging/systemd/$unit.service" >"$work/$unit.service"
        said=$(systemd-analyze verify --man=no --recursive-errors=no "$work/$unit.service" 2>&1) || fail "$unit.service: $said"
        [ -z "$said" ] || fail "$unit.service: $said"
    done
    said=$(systemd-analyze security --offline=yes --threshold=20 "$work/shipwatch-server.service" 2>&1) ||
        fail "the server's unit is less confined than it was: $(printf '%s' "$said" | tail -n 1)"
    say "units are sound"
else
    say "NOT CHECKED: the units (no systemd-analyze here; package systemd)"
fi

# --- a root of the same release as this machine: programs built here need its libc or a newer one
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[ -n "$suite" ] || fail "/etc/os-release names no release (VERSION_CODENAME)"
# shellcheck disable=SC2016  # names for apt
mirror=$(apt-get indextargets --format '$(CODENAME) $(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$suite" '($1 == suite || $(NF - 2) == suite) && $(NF - 1) == "main" { print $NF; exit }')
[ -n "$mirror" ] || fail "apt has no source of $suite main here; the root is fetched from the machine's own source"
base=target/packages-root-$suite-$(dpkg --print-architecture).tar
if [ ! -s "$base" ]; then
    say "fetching a $suite root from $mirror (kept in $base)"
    debootstrap --variant=minbase "$suite" "$work/base" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        fail "debootstrap did not make a root: $(tail -n 3 "$work/debootstrap.log")"
    rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
    mkdir -p "${base%/*}"
    tar -C "$work/base" --numeric-owner -cf "$base.new" .
    mv "$base.new" "$base"
    rm -rf --one-file-system "$work/base"
fi
mkdir "$work/root"
tar -C "$work/root" -xf "$base"
mkdir "$work/root/packages"
cp "$work"/out/* tests/packages/inside.sh "$work/root/packages/"
say "root is ready"

# --- the programs, with their own processes, mounts and network (loopback only)
unshare --mount --pid --net --uts --ipc --fork --kill-child tests/packages/namespaces.sh "$work/root" "$version" </dev/null &
inner=$!
wait "$inner" || { inner='' && fail "see above"; }
inner=''
say "done"
