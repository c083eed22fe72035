#!/usr/bin/env bash
# The menu of ../README.md for shell: one event on standard input, the answer on standard output.
set -u
event=$(cat)
field() { jq -r --arg k "$1" '.[$k] // empty' <<<"$event" 2>/dev/null; }
echo "loaded" >&2
count=1
exec {log}>&2

# shellcheck source=menu.sh
. /var/user/menu.sh
