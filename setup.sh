#!/usr/bin/env bash
# Makes the project's virtual environment: setup.sh DIRECTORY [LOCK]
# Looks for a Python 3.10 ($PYTHON, python3.10, uv, pyenv) and installs the
# exact packages of requirements.lock, without dependency resolution, and the
# project; with another LOCK, the packages of that file alone.
set -euo pipefail
cd "$(dirname "$0")"
directory=$1
lock=${2:-requirements.lock}

fail() { printf '\nacme_stac cannot be set up: %s\n' "$1" >&2; exit 1; }

platform="$(uname -s) $(uname -m)"
[ "$platform" = "Linux x86_64" ] || fail "this is $platform, but the compiled \
packages underneath (Launchpad, Reverb) exist for Linux x86_64 only.
Use such a machine, or a container or virtual machine with it. The mathematics
alone (acme_stac.core) runs elsewhere: pip install . in any Python >= 3.10."

is_python_3_10() {
  [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' \
    >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_python_3_10 "$PYTHON" && { echo "$PYTHON"; return; }
    fail "PYTHON=$PYTHON is not a Python 3.10 that runs."
  fi
  for candidate in python3.10 python3 python \
      "$(command -v uv >/dev/null && uv python find 3.10 2>/dev/null || true)" \
      "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10*/bin/python; do
    is_python_3_10 "$candidate" && { echo "$candidate"; return; }
  done
  # A uv without a Python 3.10 can bring one.
  if command -v uv >/dev/null && uv python install 3.10 >/dev/null 2>&1; then
    candidate=$(uv python find 3.10) && is_python_3_10 "$candidate" \
      && { echo "$candidate"; return; }
  fi
  fail "no Python 3.10 was found (there are no Launchpad packages for other
versions). Install one, then run make again:
  uv python install 3.10      where uv is installed, or
  pyenv install 3.10          where pyenv is installed, or
  apt install python3.10 python3.10-venv   on Ubuntu 22.04.
A Python 3.10 in an unusual place: make setup PYTHON=/path/to/python3.10"
}

python=$(find_python)
echo "Setting up $directory with $("$python" --version) (a few minutes the first time) ..."
rm -rf "$directory"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" "$directory"
  install() { VIRTUAL_ENV="$directory" uv pip install --quiet "$@"; }
else
  "$python" -m venv "$directory" \
    || fail "the venv module is missing (Debian, Ubuntu: apt install python3.10-venv)."
  install() { "$directory/bin/python" -m pip install --quiet \
    --disable-pip-version-check "$@"; }
fi
install --no-deps --require-hashes -r "$lock"
if [ "$lock" = requirements.lock ]; then
  install --no-deps --no-build-isolation --editable .
fi
echo "Ready: $directory/bin/python"
