# shellcheck shell=bash
# Sourced by the scripts beside it: finds or installs tools by name. Nothing is installed that is already there.
# Callers run `set -euo pipefail` and are in the repository's root.

note() { printf '   %s\n' "$*"; }

# as_root COMMAND...: runs it as root, or fails at once when that would need a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" 2>/dev/null; fi
}

APT_READY=""

# debian_packages NAME...: installs packages on Debian and its kin; elsewhere, or without the right to, fails.
debian_packages() {
  command -v apt-get >/dev/null || return 1
  if [ -z "$APT_READY" ]; then
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || return 1
    APT_READY=yes
  fi
  note "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE: true when the command is there, installing the Debian package first if it is not.
need() {
  command -v "$1" >/dev/null || { debian_packages "$2" && command -v "$1" >/dev/null; } || {
    note "$1 is not here and could not be installed (Debian's package is $2)"
    return 1
  }
}

# python_with DIR REQUIREMENTS: a virtual environment that holds exactly what the locked file names.
python_with() {
  local dir=$1 requirements=$2 stamp
  stamp="$dir/.installed-$(cksum <"$requirements" | cut -d' ' -f1)"
  [ -e "$stamp" ] && return 0
  need python3 python3 || return 1
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    note "Python 3.11 or newer is needed, and python3 is $(python3 -V)"
    return 1
  fi
  if ! python3 -c 'import ensurepip' 2>/dev/null; then debian_packages python3-venv || return 1; fi
  note "installing $requirements into $dir"
  python3 -m venv --clear "$dir" || return 1
  "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements" || return 1
  touch "$stamp"
}

# cargo_tool NAME VERSION FEATURES: a program from crates.io in $tools/bin, built once.
tools="$PWD/target/tools"
cargo_tool() {
  [ -e "$tools/.$1-$2" ] && return 0
  note "building $1 $2"
  cargo install --quiet --locked --root "$tools" --target-dir "$tools/build" --version "$2" --features "$3" "$1" || return 1
  rm -rf "$tools/build"
  touch "$tools/.$1-$2"
}
