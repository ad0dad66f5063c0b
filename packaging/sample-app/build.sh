#!/bin/sh
# Makes artifacts of three versions of the sample app and a deploy.yml for each:
#   OUT/v1/deploy.yml  OUT/v2/deploy.yml  work;  OUT/v3/deploy.yml  starts but answers 500, so it is taken back.
# The same sources give the same bytes and so the same SHA-256.
#
# usage: build.sh OUT [ROOT] [URL]
#   ROOT  where the app is to live on the host      (/srv/sample-app)
#   URL   where the artifacts will be fetched from  (file:// and OUT's own path)
# The environment variable PORT sets the app's port (9710).
set -eu
[ $# -ge 1 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
root=${2:-/srv/sample-app}
url=${3:-file://$out}
port=${PORT:-9710}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for release in v1 v2 v3; do
    tree="$work/$release"
    mkdir -p "$tree" "$out/$release"
    cp "$here/app.js" "$here/start.sh" "$here/stop.sh" "$tree/"
    echo "$release" >"$tree/VERSION"
    [ "$release" != v3 ] || echo "answers 500 to everything" >"$tree/BROKEN"
    chmod 644 "$tree"/* && chmod 755 "$tree" "$tree"/*.sh

    artifact="sample-app-$release.tar.gz"
    # Order, times, owners and the compressor's header are fixed.
    (cd "$tree" && LC_ALL=C tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - .) |
        gzip -9n >"$out/$release/$artifact"
    sha256=$(sha256sum "$out/$release/$artifact" | cut -d ' ' -f 1)
    sed -e "s|@RELEASE@|$release|" -e "s|@URL@|$url/$release/$artifact|" -e "s|@SHA256@|$sha256|" \
        -e "s|@ROOT@|$root|" -e "s|@PORT@|$port|g" "$here/deploy.yml.in" >"$out/$release/deploy.yml"
    echo "$release $sha256"
done
