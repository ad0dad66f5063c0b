#!/bin/sh
# Stops the app that start.sh started, if it runs. Stopping it twice is no error.
set -eu
pid_file="$SHIPWATCH_ROOT/shared/app.pid"
[ -f "$pid_file" ] || exit 0
pid=$(cat "$pid_file")

# After a crash or reboot the number may belong to somebody else: only a process that runs this app is ended.
is_ours() {
    case "$pid" in '' | *[!0-9]*) return 1 ;; esac
    # A process that ended but was not waited for has an empty command line.
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF "$SHIPWATCH_ROOT/releases/"
}

if is_ours; then
    kill -TERM "$pid" 2>/dev/null || true
    tries=0
    while is_ours; do
        tries=$((tries + 1))
        if [ "$tries" -eq 50 ]; then
            echo "process $pid does not stop, killing it"
            kill -KILL "$pid" 2>/dev/null || true
        fi
        if [ "$tries" -gt 60 ]; then
            echo "process $pid cannot be ended"
            exit 1
        fi
        sleep 0.1
    done
    echo "stopped process $pid"
fi
rm -f "$pid_file"
