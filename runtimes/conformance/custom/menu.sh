# What both bash functions do for an event. `event` and `field` are the caller's; logs go to
# standard error, the answer to standard output.
writable() { (: >"$1") 2>/dev/null && echo true || echo false; }
readable() { [ -r "$1" ] && echo true || echo false; }

case $(jq -r 'if type == "object" then .do // "" else "" end' <<<"$event" 2>/dev/null) in
raise) echo "boom" >&2; exit 1 ;;
exit) exit 3 ;;
kill) kill -KILL $$ ;;
segfault) kill -SEGV $$ ;;
spin) while :; do :; done ;;
sleep) sleep "$(field s)" ;;
children)
  setsid sh -c 'sleep 600 & echo child $! >&2' </dev/null
  sleep "$(field s)" ;;
allocate) head -c "$(field mb)M" /dev/zero | tr '\0' x | tail -c "$(field mb)M" | wc -c ;;
fillTmp)
  if head -c 1024M /dev/zero >/tmp/full 2>/dev/null; then limited=false; else limited=true; fi
  mib=$(($(stat -c %s /tmp/full) >> 20)); rm -f /tmp/full
  echo "{\"limited\":$limited,\"mib\":$mib}" ;;
forkBomb)
  # dash gives up at the first fork that fails; all of them are one process group.
  setsid sh -c 'n=0; while [ $n -lt 5000 ]; do sleep 600 & n=$((n + 1)); done' 2>/dev/null &
  bomb=$!
  if wait $bomb; then limited=false; else limited=true; fi
  kill -KILL -- -$bomb
  echo "{\"limited\":$limited}" ;;
openFiles)
  limited=false most=$(field n)
  for ((n = 0; n < most; n++)); do
    if ! { exec {file}</dev/null; } 2>/dev/null; then limited=true; break; fi
    opened+=("$file")
  done
  for file in "${opened[@]}"; do exec {file}<&-; done
  echo "{\"limited\":$limited}" ;;
connect)
  for address in $(jq -r '.to[]' <<<"$event"); do
    timeout 1 bash -c ": <>/dev/tcp/${address%:*}/${address##*:}" 2>/dev/null && echo "$address" &
  done | jq -Rnc '{reached: [inputs]}' ;;
count) echo "$count" ;;
late) (sleep "$(($(field ms)))e-3"; echo "late line" >&2) </dev/null >/dev/null & ;;
bothStreams)
  most=$(field n)
  for ((n = 0; n < most; n++)); do
    echo "out $n" >&"$log"
    echo "err $n" >&2
  done ;;
print) field text >&2 ;;
printMuch)
  echo "first line" >&2
  yes "$(printf 'y%.0s' $(seq 99))" | head -c "$(field mb)M" >&2
  echo >&2; echo "last line" >&2 ;;
printInvalid) printf 'be\xff\xfefore\n' >&2 ;;
printLong) head -c "$(field n)" /dev/zero | tr '\0' z >&2; echo >&2 ;;
fill) printf '"'; head -c "$(($(field n) - 2))" /dev/zero | tr '\0' x; printf '"' ;;
env) name=$(field name); jq -n --arg v "${!name-}" '$v' ;;
cwd) pwd ;;
read) cat "$(field path)" ;;
write) field text >"$(field path)" ;;
echo) jq -c .value <<<"$event" ;;
isolation)
  caps=$(sed -n 's/^CapEff:\s*//p' /proc/self/status | sed 's/^0*$/none/')
  nnp=$(sed -n 's/^NoNewPrivs:\s*//p' /proc/self/status)
  docker=$([ -w /var/run/docker.sock ] && echo true || echo false)
  root=$([ "$(writable /new)$(writable /etc/new)" = falsefalse ] && echo false || echo true)
  init=$( (: </proc/1/environ) 2>/dev/null && echo true || echo false)
  server=$(grep -lszx -- '[-]-data' /proc/[0-9]*/cmdline >/dev/null && echo true || echo false)
  reads=$(jq -r '.paths[]?' <<<"$event" |
    while read -r path; do [ -r "$path" ] && echo "$path"; done | jq -Rnc '[inputs]')
  sockets=$(find /run/hanshu -name '*.sock' -printf '%f\n' 2>/dev/null | jq -Rnc '[inputs]')
  secrets=$(env | sed -n 's/^\(HANSHU_[^=]*\)=.*/\1/p' | sort | jq -Rnc '[inputs]')
  echo "{\"uid\":$(id -u),\"caps\":\"$caps\",\"noNewPrivs\":\"$nnp\",\"dockerSocket\":$docker," \
    "\"writesCode\":$(writable /var/user/new),\"writesRoot\":$root," \
    "\"writesRun\":$(writable /run/hanshu/new),\"readsShadow\":$(readable /etc/shadow)," \
    "\"readsInit\":$init,\"seesServer\":$server,\"reads\":$reads," \
    "\"sockets\":$sockets,\"secrets\":$secrets}" ;;
*) printf '%s' "$event" ;;
esac
