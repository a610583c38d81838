#!/usr/bin/env bash
# venv.sh REQUIREMENTS: creates a virtual environment with the packages that the file lists, and
# prints its path. The environment is kept in the user's cache under the file's digest, so each list
# is installed once for all clones.
# Exit code 3: this machine has no suitable Python, or reaches no package index.
set -euo pipefail

[ $# -eq 1 ] || { printf 'usage: %s REQUIREMENTS\n' "$0" >&2 && exit 1; }
wanted="$1"
home="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
cache="${XDG_CACHE_HOME:-$home/.cache}/relay"
venv="$cache/$(basename "$wanted" .txt)-$(sha256sum "$wanted" | cut -c1-12)"

cannot() {
    printf '%s\n' "$1" >&2
    exit 3
}

mkdir -p "$cache"
# Two may ask at the same time: one makes it, the other waits.
exec 9>"$venv.lock"
flock 9

if ! { [ -e "$venv/done" ] && "$venv/bin/python" -c ''; } 2>/dev/null; then
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        cannot "there is no Python 3.10 or newer with venv and pip (on Debian: python3-venv and python3-pip)"
    log="$venv.log"
    python3 -m venv --clear "$venv" >"$log" 2>&1 || cannot "$venv could not be made; see $log"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -r "$wanted" >>"$log" 2>&1 ||
        cannot "pip could not install $(grep -v '^#' "$wanted" | tr '\n' ' '); see $log"
    touch "$venv/done"
fi
printf '%s\n' "$venv"
