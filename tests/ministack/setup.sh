#!/usr/bin/env bash
# Makes the virtual environment of the third-party tests under target/, and prints its path. Quick when it is there already.
# What is in it stands in requirements.txt; pip takes it from wherever this machine's pip is set up to.
set -euo pipefail

fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

here="$(cd "$(dirname "$0")" && pwd)"
target="${CARGO_TARGET_DIR:-$here/../../target}"
mkdir -p "$target"
venv="$(cd "$target" && pwd)/ministack-venv"
wanted="$here/requirements.txt"
stamp="$venv/requirements.done"

# Two tests may ask at once: one makes it, the other waits.
if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock 9
fi

if cmp -s "$wanted" "$stamp" && "$venv/bin/python" -c 'import ministack, cryptography, docker, awscli, botocore' 2>/dev/null; then
    printf '%s\n' "$venv"
    exit 0
fi

command -v python3 >/dev/null || fail "python3 is not on PATH" "the third-party tests need Python 3.10 or newer with venv and pip"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$(python3 --version 2>&1) is too old" "the third-party tests need Python 3.10 or newer"
python3 -c 'import venv, ensurepip' 2>/dev/null ||
    fail "this Python has no venv or no pip" "install them (on Debian: python3-venv and python3-pip)"

log="$venv.log"
rm -f "$stamp"
{ [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version; } >"$log" 2>&1 ||
    python3 -m venv --clear "$venv" >"$log" 2>&1 ||
    { cat "$log" >&2; fail "the virtual environment $venv could not be made"; }
"$venv/bin/python" -m pip install --disable-pip-version-check --no-input -r "$wanted" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "pip could not install what is in $wanted" "without a package index (no network, or a mirror that lacks them) these tests cannot run"
}
cp "$wanted" "$stamp"
printf '%s\n' "$venv"
