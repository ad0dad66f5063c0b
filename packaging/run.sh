#!/usr/bin/env bash
# make run: builds, then runs a server and an agent on this machine, enrolled through the real path. Ctrl-C stops all.
#
# SHIPWATCH_DATA (default .shipwatch), SHIPWATCH_HTTP (127.0.0.1:9700), SHIPWATCH_AGENTS (127.0.0.1:9701),
# SHIPWATCH_ADMIN_PASSWORD (made at the first start and kept in the data directory). A second start goes on with the same data.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD

say() { printf '%s\n' "$*"; }
fail() {
    printf 'make run: %s\n' "$*" >&2
    exit 1
}

# --- what must be there, all of it told at once
missing=()
if ! command -v cargo >/dev/null 2>&1; then
    missing+=("Rust 1.95 or newer: https://rustup.rs")
elif ! cargo --version | awk '{ split($2, v, "."); exit !(v[1] > 1 || v[2] >= 95) }'; then
    missing+=("Rust 1.95 or newer (this is $(cargo --version)): rustup update stable")
fi
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    missing+=("Node.js 20.19 or newer with npm: https://nodejs.org, or your distribution's packages nodejs and npm")
elif ! node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; then
    missing+=("Node.js 20.19 or newer (this is $(node --version)): https://nodejs.org")
fi
command -v "${CC:-cc}" >/dev/null 2>&1 || missing+=("a C compiler: apt-get install gcc libc6-dev, or dnf install gcc")
command -v make >/dev/null 2>&1 || missing+=("make: apt-get install make, or dnf install make")
command -v setsid >/dev/null 2>&1 || missing+=("setsid: apt-get install util-linux, or dnf install util-linux")
[ "$(uname -s)" = Linux ] || missing+=("Linux: the agent reads /proc")
if [ "${#missing[@]}" -gt 0 ]; then
    say "make run: this machine lacks:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi

# --- where it listens; one that listens everywhere is reached here
export SHIPWATCH_HTTP=${SHIPWATCH_HTTP:-127.0.0.1:9700} SHIPWATCH_AGENTS=${SHIPWATCH_AGENTS:-127.0.0.1:9701}
reached() { sed -e 's/^0\.0\.0\.0:/127.0.0.1:/' -e 's/^\[::\]:/[::1]:/' <<<"$1"; }
url=http://$(reached "$SHIPWATCH_HTTP")
agents=$(reached "$SHIPWATCH_AGENTS")
ready() { node -e "fetch('$url/-/ready').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"; }
! ready || fail "a Shipwatch server is running at $url already; stop it first, or choose other ports (SHIPWATCH_HTTP, SHIPWATCH_AGENTS)"

# --- build
started=$SECONDS
make --no-print-directory build
say "built in $((SECONDS - started)) s"

# --- places
data=${SHIPWATCH_DATA:-$top/.shipwatch}
mkdir -p "$data"
data=$(cd "$data" && pwd)
chmod 700 "$data"
mkdir -p "$data/log" "$data/rules" "$data/agent" "$data/apps"
password_file=$data/admin-password
if [ -z "${SHIPWATCH_ADMIN_PASSWORD:-}" ]; then
    [ -s "$password_file" ] || (umask 077 && node -e 'process.stdout.write(require("crypto").randomBytes(12).toString("base64url"))' >"$password_file")
    SHIPWATCH_ADMIN_PASSWORD=$(cat "$password_file")
fi
export SHIPWATCH_ADMIN_PASSWORD
bin=$top/target/release
# The operator's command line, whatever else the environment holds.
shipwatch() { SHIPWATCH_URL=$url SHIPWATCH_TOKEN='' SHIPWATCH_USER=admin SHIPWATCH_PASSWORD=$SHIPWATCH_ADMIN_PASSWORD "$bin/shipwatch" "$@"; }

[ -e "$data/rules/starter.yml" ] || cp packaging/rules/starter.yml "$data/rules/starter.yml"
if [ ! -e "$data/server.toml" ]; then
    cat >"$data/server.toml" <<TOML
# Made by make run; yours to change. Every key is described in packaging/server.toml.
[rules]
files = ["$data/rules"]
interval = "5s"
TOML
fi
if [ ! -e "$data/agent/agent.toml" ]; then
    cat >"$data/agent/agent.toml" <<TOML
# Made by make run; yours to change. Every key is described in packaging/agent.toml.
[agent]
state_dir = "$data/agent/state"
policy_file = "$data/agent/policy.toml"
[collect]
interval = "5s"
[tail]
files = ["$data/log/*.log", "$data/apps/*/shared/*.log", "/var/log/*.log"]
start_at = "beginning"
TOML
fi
if [ ! -e "$data/agent/policy.toml" ]; then
    cat >"$data/agent/policy.toml" <<TOML
# What the server may ask of this host. Made by make run for the sample application.
[deploy]
enabled = true
apps = ["*"]
roots = ["$data/apps"]
artifact_urls = ["file://$data/sample-app/"]
allow_root = true
TOML
    chmod 600 "$data/agent/policy.toml"
fi
packaging/sample-app/build.sh "$data/sample-app" "$data/apps/sample" >/dev/null

# --- start and stop
server_pid='' agent_pid=''
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
end() { # PID: asks it to stop, and waits
    if alive "$1"; then
        kill -TERM "$1" 2>/dev/null || true
        wait "$1" 2>/dev/null || true
    fi
}
# The sample application belongs to this run, if it was deployed: start.sh or stop.sh of its current release.
sample() {
    local current=$data/apps/sample/current
    [ -x "$current/$1" ] || return 0
    (cd "$current" && SHIPWATCH_ROOT=$data/apps/sample SHIPWATCH_RELEASE_DIR=$(pwd -P) PORT=${PORT:-9710} "./$1") >>"$data/log/sample-app.log" 2>&1 ||
        say "the sample application: $1 failed; see $data/log/sample-app.log"
}
stop() {
    # A second Ctrl-C must not leave half of it running.
    trap '' INT TERM HUP
    trap - EXIT
    printf '\nstopping\n'
    end "$agent_pid"
    end "$server_pid"
    sample stop.sh
    say "stopped; the data stays in $data"
}
# The terminal's Ctrl-C reaches this script only (setsid below), so that it can stop the agent first, then the server.
trap 'stop; exit 0' INT TERM HUP
trap 'stop' EXIT

launched=$SECONDS since=$(date +%s)
SHIPWATCH_DATA=$data/server setsid "$bin/shipwatch-server" serve --config "$data/server.toml" </dev/null >>"$data/log/server.log" 2>&1 &
server_pid=$!
for _ in $(seq 1 100); do
    ready && break
    if ! alive "$server_pid"; then
        tail -n 5 "$data/log/server.log" >&2
        server_pid=''
        fail "the server did not start; its log is $data/log/server.log"
    fi
    sleep 0.2
done
ready || fail "the server is not ready after 20 s; its log is $data/log/server.log"

if [ ! -e "$data/agent/state/identity/identity.bin" ]; then
    token=$(SHIPWATCH_DATA=$data/server "$bin/shipwatch-server" token create --config "$data/server.toml" --env dev --region local --ttl 10m)
    SHIPWATCH_TOKEN=$token "$bin/shipwatch-agent" enroll --config "$data/agent/agent.toml" --server "$agents"
fi
# The address may have changed since the enrolment.
SHIPWATCH_UPLINK_SERVER=$agents setsid "$bin/shipwatch-agent" run --config "$data/agent/agent.toml" </dev/null >>"$data/log/agent.log" 2>&1 &
agent_pid=$!
sample start.sh

# Of this start: the ones before are still there.
sampled() { shipwatch query "count(timestamp(node_load1) >= $since)" 2>/dev/null | grep -q 1; }
first=''
for _ in $(seq 1 150); do
    if sampled; then
        first="first samples after $((SECONDS - launched)) s"
        break
    fi
    if ! alive "$agent_pid"; then
        tail -n 5 "$data/log/agent.log" >&2
        fail "the agent did not start; its log is $data/log/agent.log"
    fi
    sleep 0.2
done
[ -n "$first" ] || fail "no sample has arrived after 30 s; see $data/log/agent.log and $data/log/server.log"
host=$(shipwatch hosts --json | node -p 'JSON.parse(require("fs").readFileSync(0, "utf8")).hosts[0].name')

cat <<TEXT

  Shipwatch (护航) runs: $first

    dashboard   $url
    user        admin
    password    $SHIPWATCH_ADMIN_PASSWORD

  Deploy the sample application (v3 is broken and goes back to v2 by itself):

    export SHIPWATCH_URL=$url SHIPWATCH_PASSWORD=$(printf %q "$SHIPWATCH_ADMIN_PASSWORD")
    $bin/shipwatch deploy $data/sample-app/v1/deploy.yml --host $host
    $bin/shipwatch deploy $data/sample-app/v2/deploy.yml --host $host
    $bin/shipwatch deploy $data/sample-app/v3/deploy.yml --host $host

  Logs: $data/log/server.log, $data/log/agent.log. Rules: $data/rules/. Channels: [[notify.channels]] in $data/server.toml.
  Ctrl-C stops everything; the data stays.

TEXT

while alive "$server_pid" && alive "$agent_pid"; do
    # A child's end, or a signal, ends the wait at once.
    wait -n "$server_pid" "$agent_pid" || true
done
if alive "$server_pid"; then
    tail -n 5 "$data/log/agent.log" >&2
    fail "the agent ended by itself"
fi
tail -n 5 "$data/log/server.log" >&2
fail "the server ended by itself"
