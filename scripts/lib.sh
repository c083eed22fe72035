# Shared by the scripts: sourced, never run.

say() { printf '%s\n' "$*"; }
note() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need_packages PACKAGE... : installs the Debian packages that are missing, or says how.
need_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  if [ "$(id -u)" != 0 ]; then
    die "these Debian packages are missing. Run:  sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  note "Installing ${missing[*]} …"
  apt-get update -q -o APT::Update::Error-Mode=any >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
}

# have COMMAND... : whether all of these commands are there, from wherever.
have() { local c; for c in "$@"; do command -v "$c" >/dev/null 2>&1 || return 1; done; }

# need_rust : a toolchain cannot be installed from Debian 12 in the version needed.
need_rust() {
  command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null || die "no Rust toolchain: install Rust 1.94 or newer with rustup (the command is on the Rust project's home page), then run this again"
}

# free_port : a TCP port of loopback that nobody listens on now.
free_port() { /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_until SECONDS COMMAND... : until the command succeeds.
wait_until() {
  local until=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.1
  done
}
