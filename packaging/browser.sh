#!/usr/bin/env bash
# The dashboard in a real browser against a real server and agent: browser.sh [BIN_DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${1:-target/debug}" && pwd)
dir=$(mktemp -d)
pids=()
finish() {
    if [ -x "$dir/apps/sample/current/stop.sh" ]; then
        (cd "$dir/apps/sample/current" && SHIPWATCH_ROOT=$dir/apps/sample ./stop.sh) >/dev/null 2>&1 || true
    fi
    for pid in "${pids[@]}"; do
        if kill -TERM "$pid" 2>/dev/null; then wait "$pid" 2>/dev/null || true; fi
    done
    rm -rf "$dir"
}
trap finish EXIT
port() { node -e 'const s = require("net").createServer(); s.listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'; }
export SHIPWATCH_DATA=$dir/data SHIPWATCH_ADMIN_PASSWORD=browser-test-password
SHIPWATCH_HTTP=127.0.0.1:$(port)
SHIPWATCH_AGENTS=127.0.0.1:$(port)
export SHIPWATCH_HTTP SHIPWATCH_AGENTS
export SHIPWATCH_URL=http://$SHIPWATCH_HTTP SHIPWATCH_USER=admin SHIPWATCH_PASSWORD=$SHIPWATCH_ADMIN_PASSWORD
mkdir -p "$dir/log" "$dir/apps"
PORT=$(port) packaging/sample-app/build.sh "$dir/sample-app" "$dir/apps/sample" >/dev/null
export SHIPWATCH_DEPLOY_YML=$dir/sample-app/v1/deploy.yml
cat >"$dir/policy.toml" <<TOML
[deploy]
enabled = true
apps = ["*"]
roots = ["$dir/apps"]
artifact_urls = ["file://$dir/sample-app/"]
allow_root = true
TOML
chmod 600 "$dir/policy.toml"
cat >"$dir/server.toml" <<TOML
[rules]
files = ["$PWD/packaging/rules/starter.yml"]
interval = "1s"
TOML
cat >"$dir/agent.toml" <<TOML
[agent]
state_dir = "$dir/agent"
policy_file = "$dir/policy.toml"
[collect]
interval = "1s"
[tail]
files = ["$dir/log/*.log"]
start_at = "beginning"
TOML
"$bin/shipwatch-server" serve --config "$dir/server.toml" >"$dir/log/server.log" 2>&1 &
pids+=($!)
for _ in $(seq 1 100); do
    if node -e "fetch('$SHIPWATCH_URL/-/ready').then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"; then break; fi
    sleep 0.1
done
SHIPWATCH_TOKEN=$("$bin/shipwatch-server" token create --env prod --region eu) \
    "$bin/shipwatch-agent" enroll --config "$dir/agent.toml" --server "$SHIPWATCH_AGENTS" --name web-1
"$bin/shipwatch-agent" run --config "$dir/agent.toml" >"$dir/log/agent.log" 2>&1 &
pids=($! "${pids[@]}")
for _ in $(seq 1 100); do
    if "$bin/shipwatch" query 'count_over_time(node_load1[1m]) > 3' 2>/dev/null | grep -q web-1; then break; fi
    sleep 0.2
done
failed() {
    for log in "$dir"/log/*.log; do printf -- '--- end of %s\n' "${log##*/}" && tail -n 20 "$log"; done >&2
    exit 1
}
(cd server/web && npm run e2e:real) || failed
