#!/bin/sh
# Installs what a development home and the README's commands need: SoftHSM, ssh-keygen, openssl, curl, sqlite3, jq, and
# the compiler for the native npm packages where they are not built yet. With --test also what the tests run against.
# Says nothing when all of it is there.
#
#   softhsm/install.sh [--test]
#
# Installs as root on systems with apt-get. Otherwise it changes nothing, names the command or the packages, and
# exits with status 1. Node itself is left to you.
set -eu

tests=
case "${1-}" in
  '') ;;
  --test) tests=yes ;;
  *)
    echo "usage: softhsm/install.sh [--test]" >&2
    exit 2
    ;;
esac

say() { printf '%s\n' "softhsm/install.sh: $*" >&2; }

has() {
  command -v "$1" >/dev/null 2>&1
}

missing=
# need PACKAGE COMMAND: notes the package unless the command is there.
need() { has "$2" || missing="$missing $1"; }

need softhsm2 softhsm2-util
need openssh-client ssh-keygen
need openssl openssl
need curl curl
need sqlite3 sqlite3 # countersign verify reads a database with it
need jq jq

home=$(cd "$(dirname "$0")/.." && pwd)
if [ ! -e "$home/node_modules/pkcs11js/build/Release/pkcs11.node" ] ||
  [ ! -e "$home/node_modules/sqlite3/build/Release/node_sqlite3.node" ]; then
  need python3 python3
  need make make
  need g++ c++
fi

if [ -n "$tests" ]; then
  need golang-go go
  [ -d /usr/share/gocode/src/golang.org/x/mod ] || missing="$missing golang-golang-x-mod-dev"
  need age age
  need xxd xxd
  need bsdutils script
  need python3 python3
fi

status=0
version=$(node --version 2>/dev/null || echo none)
if ! printf '%s\n' "$version" | awk -F'[v.]' '{ exit !($2 > 20 || ($2 == 20 && $3 >= 19)) }'; then
  say "Node 20.19 or newer is needed, found: $version. See https://nodejs.org/en/download"
  status=1
fi

missing=${missing# }
[ -n "$missing" ] || exit "$status"

if ! has apt-get; then
  say "please install these packages, or what they are called on this system: $missing"
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  # A new machine has no lists of packages yet, and perhaps no sudo.
  if has sudo; then
    say "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends $missing"
  else
    say "please run as root: apt-get update && apt-get install -y --no-install-recommends $missing"
  fi
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
say "installing $missing"
# The lists of packages are fetched only if they are missing or too old to install from.
# shellcheck disable=SC2086 # a list of package names
install() { apt-get install -y -q --no-install-recommends $missing >&2; }
# shellcheck disable=SC2086
known() { apt-cache show $missing >/dev/null 2>&1; }
if ! known || ! install; then
  apt-get update -q >&2
  install
fi
exit "$status"
