#!/usr/bin/env bash
# make run: builds, then runs a server and an agent on this machine, enrolled through the real path. Ctrl-C stops all.
#
# SHIPWATCH_DATA (default .shipwatch), SHIPWATCH_HTTP (127.0.0.1:9700), SHIPWATCH_AGENTS (127.0.0.1:9701),
# SHIPWATCH_ADMIN_PASSWORD (made at the first start and kept in the data directory).
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
    missing+=("Node.js 20 or newer with npm: https://nodejs.org, or your distribution's package nodejs")
elif [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
    missing+=("Node.js 20 or newer (this is $(node --version)): https://nodejs.org")
fi
command -v cc >/dev/null 2>&1 || missing+=("a C compiler: apt-get install gcc libc6-dev, or dnf install gcc")
command -v make >/dev/null 2>&1 || missing+=("make: apt-get install make, or dnf install make")
[ "$(uname -s)" = Linux ] || missing+=("Linux: the agent reads /proc")
if [ "${#missing[@]}" -gt 0 ]; then
    say "make run: this machine lacks:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi

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
export SHIPWATCH_HTTP=${SHIPWATCH_HTTP:-127.0.0.1:9700} SHIPWATCH_AGENTS=${SHIPWATCH_AGENTS:-127.0.0.1:9701}
password_file=$data/admin-password
if [ -z "${SHIPWATCH_ADMIN_PASSWORD:-}" ]; then
    [ -s "$password_file" ] || (umask 077 && node -e 'process.stdout.write(require("crypto").randomBytes(12).toString("base64url"))' >"$password_file")
    SHIPWATCH_ADMIN_PASSWORD=$(cat "$password_file")
fi
export SHIPWATCH_ADMIN_PASSWORD
bin=$top/target/release
url=http://$SHIPWATCH_HTTP

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
server_pid= agent_pid=
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
stop() {
    trap - INT TERM EXIT
    say "" "stopping"
    if alive "$agent_pid"; then kill -TERM "$agent_pid" && wait "$agent_pid" || true; fi
    if alive "$server_pid"; then kill -TERM "$server_pid" && wait "$server_pid" || true; fi
    if [ -x "$data/apps/sample/current/stop.sh" ]; then
        (cd "$data/apps/sample/current" && SHIPWATCH_ROOT=$data/apps/sample ./stop.sh) >/dev/null 2>&1 || true
    fi
    say "stopped; the data stays in $data"
}
trap 'stop; exit 0' INT TERM
trap 'stop' EXIT

launched=$SECONDS
SHIPWATCH_DATA=$data/server "$bin/shipwatch-server" serve --config "$data/server.toml" >>"$data/log/server.log" 2>&1 &
server_pid=$!
ready() { node -e "fetch('$url/-/ready').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"; }
for _ in $(seq 1 100); do
    ready && break
    if ! alive "$server_pid"; then
        tail -n 5 "$data/log/server.log" >&2
        server_pid=
        fail "the server did not start; its log is $data/log/server.log"
    fi
    sleep 0.2
done
ready || fail "the server is not ready after 20 s; its log is $data/log/server.log"

if [ ! -e "$data/agent/state/identity/identity.bin" ]; then
    token=$(SHIPWATCH_DATA=$data/server "$bin/shipwatch-server" token create --config "$data/server.toml" --env dev --region local --ttl 10m)
    SHIPWATCH_TOKEN=$token "$bin/shipwatch-agent" enroll --config "$data/agent/agent.toml" --server "$SHIPWATCH_AGENTS"
fi
"$bin/shipwatch-agent" run --config "$data/agent/agent.toml" >>"$data/log/agent.log" 2>&1 &
agent_pid=$!

first_chart() {
    SHIPWATCH_URL=$url SHIPWATCH_PASSWORD=$SHIPWATCH_ADMIN_PASSWORD "$bin/shipwatch" query 'count(node_load1)' 2>/dev/null | grep -q 1
}
for _ in $(seq 1 100); do
    first_chart && break
    alive "$agent_pid" || break
    sleep 0.2
done
if ! alive "$agent_pid"; then
    tail -n 5 "$data/log/agent.log" >&2
    fail "the agent did not start; its log is $data/log/agent.log"
fi
host=$(SHIPWATCH_URL=$url SHIPWATCH_PASSWORD=$SHIPWATCH_ADMIN_PASSWORD "$bin/shipwatch" hosts --json | node -p 'JSON.parse(require("fs").readFileSync(0, "utf8")).hosts[0].name')

cat <<TEXT

  Shipwatch (护航) runs: first samples after $((SECONDS - launched)) s

    dashboard   $url
    user        admin
    password    $SHIPWATCH_ADMIN_PASSWORD

  Deploy the sample application (v3 is broken and goes back to v2 by itself):

    export SHIPWATCH_URL=$url SHIPWATCH_PASSWORD='$SHIPWATCH_ADMIN_PASSWORD'
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
