#!/bin/sh
# Starts the app in the background; it outlives this script. Run by the deployment in the release's directory.
set -eu
shared="$SHIPWATCH_ROOT/shared"
pid_file="$shared/app.pid"
mkdir -p "$shared"

# One that an interrupted deployment left running would hold the port.
sh ./stop.sh

# The path of the release is an argument, so that stop.sh can tell this process from others.
setsid node "$SHIPWATCH_RELEASE_DIR/app.js" </dev/null >>"$shared/app.log" 2>&1 &
pid=$!
echo "$pid" >"$pid_file.new"
mv "$pid_file.new" "$pid_file"

# Gone at once means that it could not start: say why, rather than wait for the health check's deadline.
sleep 0.3
if ! kill -0 "$pid" 2>/dev/null; then
    echo "the app ended at once; its last lines:"
    tail -n 5 "$shared/app.log"
    exit 1
fi
echo "started version $(cat VERSION) as process $pid"
