#!/usr/bin/env bash
# Runs one phase of the tests and says how long it took: phase.sh NAME COMMAND…
set -euo pipefail
name=$1
shift
started=$SECONDS
echo "== $name"
if "$@"; then
    echo "== $name: passed after $((SECONDS - started)) s"
else
    code=$?
    echo "== $name: FAILED after $((SECONDS - started)) s" >&2
    exit "$code"
fi
