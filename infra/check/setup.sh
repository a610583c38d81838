#!/usr/bin/env bash
# setup.sh lint|checkov: makes that virtual environment under target/, and prints its path. Quick when it is there already.
# Exit code 3: this machine has no Python for it, or no package index; there is nothing wrong with the templates.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
case "${1:-}" in
lint) wanted="$here/lint.txt" name=infra-venv ;;
checkov) wanted="$here/checkov.txt" name=checkov-venv ;;
*) printf 'usage: %s lint|checkov\n' "$0" >&2 && exit 1 ;;
esac
target="${CARGO_TARGET_DIR:-$here/../../target}"
mkdir -p "$target"
venv="$(cd "$target" && pwd)/$name"
stamp="$venv/requirements.done"

cannot() {
    printf '%s\n' "$1" >&2
    exit 3
}

if ! { cmp -s "$wanted" "$stamp" && "$venv/bin/python" -c ''; } 2>/dev/null; then
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        cannot "there is no Python 3.10 or newer with venv and pip"
    log="$venv.log"
    "$venv/bin/python" -m pip --version >"$log" 2>&1 || python3 -m venv --clear "$venv" >"$log" 2>&1 ||
        cannot "$venv could not be made; see $log"
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -r "$wanted" >>"$log" 2>&1 ||
        cannot "pip could not install $(grep -v '^#' "$wanted"); see $log"
    cp "$wanted" "$stamp"
fi
printf '%s\n' "$venv"
