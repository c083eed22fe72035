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
walls)
  caps=$(sed -n 's/^CapEff:\s*//p' /proc/self/status | sed 's/^0*$/none/')
  nnp=$(sed -n 's/^NoNewPrivs:\s*//p' /proc/self/status)
  docker=$([ -w /var/run/docker.sock ] && echo true || echo false)
  root=$([ "$(writable /new)$(writable /etc/new)" = falsefalse ] && echo false || echo true)
  sockets=$(find /run/hanshu -name '*.sock' -printf '%f\n' 2>/dev/null | jq -Rnc '[inputs]')
  secrets=$(env | sed -n 's/^\(HANSHU_[^=]*\)=.*/\1/p' | jq -Rnc '[inputs]')
  echo "{\"uid\":$(id -u),\"caps\":\"$caps\",\"noNewPrivs\":\"$nnp\",\"dockerSocket\":$docker," \
    "\"writesCode\":$(writable /var/user/new),\"writesRoot\":$root," \
    "\"writesRun\":$(writable /run/hanshu/new),\"readsShadow\":$(readable /etc/shadow)," \
    "\"sockets\":$sockets,\"secrets\":$secrets}" ;;
*) printf '%s' "$event" ;;
esac
