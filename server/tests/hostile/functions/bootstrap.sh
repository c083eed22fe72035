#!/usr/bin/env bash
# A custom runtime that misuses its runtime API, and looks for the shim's connection.
set -u
api="http://$SCF_RUNTIME_API:$SCF_RUNTIME_API_PORT/runtime"
call() { curl -sS -o /dev/null "$@"; }
answer() { call --data-binary "${2:-@-}" "$api/invocation/$1"; }
[ "${LOAD:-}" = never ] && sleep 600
call -d ' ' "$api/init/ready"
while :; do
  do=$(curl -sS "$api/invocation/next" | jq -r .do)
  case $do in
  twice) answer response '"first"'; answer response '"second"'; answer error third ;;
  too-large) head -c 6291457 /dev/zero | tr '\0' 1 | answer response ;;
  slowly) head -c 1000 /dev/zero | tr '\0' 1 | call --limit-rate 10 --data-binary @- "$api/invocation/response" ;;
  no-http) exec 3<>"/dev/tcp/$SCF_RUNTIME_API/$SCF_RUNTIME_API_PORT"; head -c 100000 /dev/urandom >&3; exec 3>&-; answer response '"survived"' ;;
  connections)
    for n in $(seq 100); do exec {fd}<>"/dev/tcp/$SCF_RUNTIME_API/$SCF_RUNTIME_API_PORT"; done
    sleep 600 ;;
  shim)
    found=0
    for fd in /proc/1/fd/*; do [ -e "$fd" ] && found=$((found + 1)); done
    cat /proc/1/environ >/dev/null 2>&1 && found=$((found + 1))
    kill -KILL 1; kill -STOP 1
    answer response "$found" ;;
  *) answer response '"honest"' ;;
  esac
done
