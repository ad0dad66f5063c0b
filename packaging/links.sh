#!/usr/bin/env bash
# Says every link between the repository's texts that leads nowhere.
set -euo pipefail
cd "$(dirname "$0")/.."
broken=0
for text in *.md docs/*.md docs/zh/*.md; do
    while IFS= read -r link; do
        target=${link%%#*}
        case $link in http://* | https://* | mailto:*) continue ;; esac
        if [ -n "$target" ] && [ ! -e "$(dirname "$text")/$target" ]; then
            echo "$text: $link leads nowhere" >&2
            broken=1
        fi
    done < <(grep -oE '\]\([^) ]+\)' "$text" | sed -E 's/^\]\((.*)\)$/\1/')
done
exit "$broken"
