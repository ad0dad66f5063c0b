#!/bin/bash
# The part of the packages' test that runs inside the root: inside.sh PART VERSION
set -euo pipefail
part=$1 version=$2
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive
cd /

say() { printf 'packages:        %s\n' "$*"; }
fail() {
    printf 'packages: FAILED: %s\n' "$*" >&2
    for log in /tmp/server.log /tmp/agent.log; do
        [ ! -s "$log" ] || { printf -- '--- end of %s\n' "$log" && tail -n 10 "$log"; } >&2
    done
    exit 1
}
run() { # what it said is told only if it failed
    local said
    said=$("$@" 2>&1) || fail "$* ended with $?: $said"
}
is() { # PATH MODE OWNER
    local found
    found=$(stat -c '%a %U:%G' "$1") || fail "$1 is not there"
    [ "$found" = "$2 $3" ] || fail "$1 is $found, not $2 $3"
}
gone() { for path in "$@"; do [ ! -e "$path" ] || fail "$path is still there"; done; }
there() { for path in "$@"; do [ -e "$path" ] || fail "$path is gone"; done; }
within() { # SECONDS WHAT COMMAND...: polls a condition up to a deadline
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what did not happen in time"
        sleep 0.1
    done
}
programs() { # processes of the packages
    local link
    for link in /proc/[0-9]*/exe; do
        case $(readlink "$link" 2>/dev/null) in /usr/bin/shipwatch*) echo "${link%/exe}" ;; esac
    done
}
# What the unit runs, as the user that it names.
as_unit() {
    local unit=/usr/lib/systemd/system/$1.service user command
    user=$(sed -n 's/^User=//p' "$unit")
    read -ra command <<<"$(sed -n 's/^ExecStart=//p' "$unit")"
    exec setpriv --reuid="$user" --regid="$user" --clear-groups --no-new-privs env -i PATH="$PATH" "${@:2}" "${command[@]}"
}
stop() { # PID NAME
    kill -TERM "$1"
    wait "$1" || fail "$2 ended with $? when it was asked to stop"
}
ready() {
    local answer=''
    # The connection is refused until the server listens.
    { exec 3<>/dev/tcp/127.0.0.1/9700; } 2>/dev/null || return 1
    printf 'GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r answer <&3 || true
    exec 3>&-
    case $answer in *" 200 "*) return 0 ;; *) return 1 ;; esac
}
checks() {
    local program
    for program in shipwatch-agent shipwatch-server shipwatch; do
        [ "$("$program" --version)" = "$program $version" ] || fail "$program --version says $("$program" --version), not $version"
    done
    run shipwatch-agent check
    run runuser -u shipwatch -- shipwatch-server check
}

deb() {
    run dpkg -i /packages/shipwatch-server_*.deb /packages/shipwatch-agent_*.deb
    [ -z "$(programs)" ] || fail "installing started a program in a root without systemd"
    is /etc/shipwatch/server.toml 640 root:shipwatch
    is /etc/shipwatch/agent.toml 640 root:root
    is /etc/shipwatch/policy.toml 644 root:root
    is /etc/shipwatch/rules/starter.yml 644 root:root
    is /var/lib/shipwatch 700 shipwatch:shipwatch
    is /var/lib/shipwatch-agent 700 root:root
    there /etc/systemd/system/multi-user.target.wants/shipwatch-{agent,server}.service
    [ "$(getent passwd shipwatch | cut -d : -f 6,7)" = /var/lib/shipwatch:/usr/sbin/nologin ] || fail "the user shipwatch is not as expected"
    checks
    say "installed; versions and shipped configuration are good"

    as_unit shipwatch-server >/tmp/server.log 2>&1 &
    server=$!
    within 30 "the server's /-/ready" ready
    is /var/lib/shipwatch/initial-admin-password 600 shipwatch:shipwatch
    local token password
    token=$(runuser -u shipwatch -- shipwatch-server token create --env test --region local) || fail "no enrolment token was made"
    # As root as well, since people will; the server must still be able to write.
    run shipwatch-server token create --env test
    run shipwatch-agent enroll --server 127.0.0.1:9701 --name packages-test --token - <<<"$token"
    is /var/lib/shipwatch-agent/identity/identity.bin 600 root:root
    as_unit shipwatch-agent SHIPWATCH_COLLECT_INTERVAL=1s >/tmp/agent.log 2>&1 &
    agent=$!
    within 30 "the agent's connection" shipwatch-agent status >/dev/null 2>&1
    password=$(cat /var/lib/shipwatch/initial-admin-password)
    export SHIPWATCH_USER=admin SHIPWATCH_PASSWORD=$password
    sampled() { shipwatch query 'count(node_load1{instance="packages-test"})' 2>/dev/null | grep -q 1; }
    within 30 "a sample of the agent in the server" sampled
    shipwatch hosts --json | grep -q '"packages-test"' || fail "the server does not list the host"
    run shipwatch-agent doctor
    [ -z "$(find /var/lib/shipwatch ! -user shipwatch)" ] || fail "not the server's own: $(find /var/lib/shipwatch ! -user shipwatch)"
    say "server and agent work together"

    stop "$agent" "the agent"
    stop "$server" "the server"
    echo '# changed by an administrator' >>/etc/shipwatch/agent.toml
    echo 'groups: []' >/etc/shipwatch/rules/own.yml
    run dpkg -i /packages/shipwatch-server_*.deb /packages/shipwatch-agent_*.deb
    grep -q 'changed by an administrator' /etc/shipwatch/agent.toml || fail "an upgrade overwrote agent.toml"
    is /etc/shipwatch/server.toml 640 root:shipwatch
    as_unit shipwatch-server >>/tmp/server.log 2>&1 &
    server=$!
    as_unit shipwatch-agent >>/tmp/agent.log 2>&1 &
    agent=$!
    within 30 "the server's /-/ready after an upgrade" ready
    within 30 "the agent's connection after an upgrade" shipwatch-agent status >/dev/null 2>&1
    stop "$agent" "the agent"
    stop "$server" "the server"
    say "installed over itself: configuration, identity and data stay"

    run dpkg -r shipwatch-agent shipwatch-server
    gone /usr/bin/shipwatch{,-agent,-server} /usr/lib/systemd/system/shipwatch-{agent,server}.service
    there /etc/shipwatch/{agent,server,policy}.toml /var/lib/shipwatch/control.db /var/lib/shipwatch-agent/identity/identity.bin
    run dpkg -P shipwatch-agent shipwatch-server
    gone /etc/shipwatch/{agent,server,policy}.toml /etc/shipwatch/rules/starter.yml /var/lib/shipwatch /var/lib/shipwatch-agent
    gone /etc/systemd/system/multi-user.target.wants/shipwatch-{agent,server}.service
    there /etc/shipwatch/rules/own.yml
    rm -r /etc/shipwatch
    userdel shipwatch
    say "removal keeps configuration and data, a purge removes them"
}

rpm_installed() {
    is /etc/shipwatch/server.toml 640 root:shipwatch
    is /etc/shipwatch/agent.toml 640 root:root
    is /etc/shipwatch/policy.toml 644 root:root
    is /var/lib/shipwatch 700 shipwatch:shipwatch
    is /var/lib/shipwatch-agent 700 root:root
    checks
    echo '# changed by an administrator' >>/etc/shipwatch/agent.toml
    echo data >/var/lib/shipwatch-agent/kept
}

case $part in
    deb) deb ;;
    rpm-installed) rpm_installed ;;
    rpm-upgraded)
        grep -q 'changed by an administrator' /etc/shipwatch/agent.toml || fail "an upgrade of the rpm overwrote agent.toml"
        ;;
    rpm-removed)
        gone /usr/bin/shipwatch{,-agent,-server}
        there /var/lib/shipwatch-agent/kept /etc/shipwatch/agent.toml.rpmsave
        say "rpms install, upgrade and remove as expected"
        ;;
    *) fail "unknown part $part" ;;
esac
