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

# faketime: libfaketime, which moves the wall clock of a process, where Debian has it.
faketime() { compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null || debian_packages libfaketime; }

# torture_tools: what breaks things in tests/torture. Without one of them, what needs it is skipped.
torture_tools() {
  faketime || note "libfaketime could not be installed: clocks are not moved"
  need strace strace || true
  need ip iproute2 || true
}

# postgres_start [BYTES]: a PostgreSQL server of its own on a free port, at $postgres_url (without a database's name). It
# refuses to run as root, so root runs it as the user that Debian's package makes. Tests find it by the environment.
# With BYTES, and where root may, it lies on a disk of that size, which a test may fill.
postgres_start() {
  local bin port more=""
  [ -n "$(postgres_bin)" ] || debian_packages postgresql || return 1
  bin="$(postgres_bin)"
  [ -n "$bin" ] || return 1
  postgres_dir="$(mktemp -d)" postgres_disk=""
  if [ -n "${1:-}" ] && [ "$(id -u)" = 0 ] && mount -t tmpfs -o "size=$1" kinora-postgres "$postgres_dir" 2>/dev/null; then
    postgres_disk="$postgres_dir" more="-c max_wal_size=96MB"
  fi
  export KINORA_TEST_POSTGRES_DISK="$postgres_disk"
  port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')" || return 1
  postgres_as="env"
  if [ "$(id -u)" = 0 ]; then
    chown postgres "$postgres_dir"
    postgres_as="runuser -u postgres --"
  fi
  (cd "$postgres_dir" &&
    $postgres_as "$bin/initdb" -D data -U kinora -A trust -E UTF8 --locale=C >initdb.log &&
    $postgres_as "$bin/pg_ctl" -w -D "$postgres_dir/data" -l log -o "-p $port -k $postgres_dir -c listen_addresses=127.0.0.1 -c max_connections=300 $more" start) >/dev/null || return 1
  postgres_url="postgres://kinora@127.0.0.1:$port"
  export KINORA_TEST_POSTGRES="$postgres_url"
  export KINORA_TEST_POSTGRES_CTL="$postgres_as $bin/pg_ctl -D $postgres_dir/data -l $postgres_dir/log"
}

# Nothing where there is none; `find` fails for a folder that is not there.
postgres_bin() { { find /usr/lib/postgresql /usr/local/lib/postgresql -maxdepth 2 -name bin -type d 2>/dev/null || true; } | sort -V | tail -1; }

postgres_stop() {
  (cd "$postgres_dir" && $postgres_as "$(postgres_bin)/pg_ctl" -D data -m immediate stop) >/dev/null
  [ -z "$postgres_disk" ] || umount "$postgres_disk"
  rm -rf "$postgres_dir"
}
