#!/usr/bin/env bash
# Makes sure that the engine has debian:<suite>-slim, the base of every image here: pulled where a
# registry answers, else made from Debian packages by mmdebstrap (about half a minute).
#
#   base.sh [SUITE]                    bookworm when left out
#   base.sh --tar FILE [SUITE]         only makes the image's archive; no engine is asked
#   HANSHU_NO_PULL=1                   never ask a registry
#   HANSHU_PULL_TIMEOUT=60             seconds that a pull may take
#   HANSHU_DEBIAN_MIRROR=http://…      where packages come from; default: mmdebstrap's own
#   TMPDIR                             needs 200 MB while it runs
#
# Exit codes: 0 the image (or the archive) is there · 2 usage · 4 no Docker engine answers · 5 no registry answers,
# and making the image needs root · 6 … needs a tool that is missing (named on stderr)
# · 7 mmdebstrap or the import failed (their words are on stderr).
set -euo pipefail

fail() { echo "base.sh: $2" >&2; exit "$1"; }

archive=
if [ "${1:-}" = --tar ]; then
  archive=${2:-}
  [ -n "$archive" ] || fail 2 "--tar wants the name of a file"
  shift 2
fi
[ $# -le 1 ] || fail 2 "usage: base.sh [--tar FILE] [SUITE]"
suite=${1:-bookworm}
[[ $suite =~ ^[a-z]+$ ]] || fail 2 "suite \`$suite\` is not a name such as bookworm"
tag=debian:$suite-slim

# The image's file system as one archive, $1.
make_archive() {
  [ "$(id -u)" = 0 ] || fail 5 "making $tag from Debian packages needs root, and no registry gave it"
  command -v mmdebstrap >/dev/null ||
    fail 6 "the \`mmdebstrap\` command is missing, and no registry gave $tag: apt-get install mmdebstrap"
  # man1 must exist while packages are installed: a JDK's setup links into it.
  mmdebstrap --quiet --variant=minbase \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --setup-hook='mkdir -p "$1/usr/share/man/man1"' \
    "$suite" "$1" ${HANSHU_DEBIAN_MIRROR:+"$HANSHU_DEBIAN_MIRROR"} ||
    fail 7 "mmdebstrap could not make $suite"
}

if [ -n "$archive" ]; then
  make_archive "$archive"
  exit 0
fi
command -v docker >/dev/null || fail 6 "the \`docker\` command is missing: apt-get install docker.io"
docker version >/dev/null 2>&1 || fail 4 "no Docker engine answers"
if docker image inspect "$tag" >/dev/null 2>&1; then
  exit 0
fi
if [ "${HANSHU_NO_PULL:-}" != 1 ]; then
  echo "pulling $tag"
  if timeout "${HANSHU_PULL_TIMEOUT:-60}" docker pull -q "$tag" 2>/dev/null; then
    exit 0
  fi
  echo "no registry answers; making $tag from Debian packages"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
make_archive "$work/base.tar"
docker import -c 'CMD ["bash"]' \
  -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  "$work/base.tar" "$tag" >/dev/null || fail 7 "docker import of $tag failed"
echo "made $tag"
