#!/usr/bin/env bash
# Makes a virtual environment with exact versions, without dependency resolution:
# setup.sh STACK [--dry-run]
#   distributed  everything, in .venv, for Python 3.10
#   current      the one-host layer, in .venv-current, for Python 3.11 to 3.13
#   xm           XManager alone, in .venv-xm, for Python 3.10
# Does nothing if the environment already has these versions.
# PYTHON is the Python to use; by default, the script looks for one (python3.x,
# uv, pyenv). ACCELERATOR is cpu, cuda12, cuda13 or tpu; by default, it is that of
# the environment, or, for a new one, chosen according to nvidia-smi.
set -euo pipefail
cd "$(dirname "$0")"

fail() { printf '\nacme_stac cannot be set up: %s\n' "$1" >&2; exit 1; }

stack=${1:-}
case $stack in
  distributed)
    directory=.venv lock=requirements.lock versions=3.10
    accelerators="cpu cuda12 tpu" ;;
  current)
    # The first version found is used. 3.12 comes first, because labmaze has no
    # packages for 3.13.
    directory=.venv-current lock=requirements-current.lock
    versions="3.12 3.13 3.11" accelerators="cpu cuda12 cuda13 tpu" ;;
  xm)
    directory=.venv-xm lock=xm_launch/requirements.lock versions=3.10
    accelerators=cpu ;;
  *) fail "STACK=$stack is neither 'distributed' nor 'current'." ;;
esac
newest=${versions%% *}

if [ "$stack" != current ]; then
  platform="$(uname -s) $(uname -m)"
  [ "$platform" = "Linux x86_64" ] || fail "this is $platform, but the compiled \
packages underneath (Launchpad, Reverb) exist for Linux x86_64 only.
Training on one host needs neither: make train STACK=current."
fi

find_accelerator() {
  local driver kept
  # XManager only launches; it needs no accelerator.
  [ "$stack" != xm ] || { echo cpu; return; }
  [ -z "${ACCELERATOR:-}" ] || { echo "$ACCELERATOR"; return; }
  kept=$(sed -n 2p "$directory/.complete" 2>/dev/null || true)
  [ -z "$kept" ] || { echo "$kept"; return; }
  # WSL's is not always on the path.
  driver=$(PATH="$PATH:/usr/lib/wsl/lib" nvidia-smi \
    --query-gpu=driver_version --format=csv,noheader 2>/dev/null) \
    || { echo cpu; return; }
  driver=${driver%%.*}
  # The drivers are those of acme_stac/accelerator.py. The distributed stack's
  # JAX 0.6.2 supports only CUDA 12.
  if [[ ! $driver =~ ^[0-9]+$ ]]; then echo cpu
  elif [[ $stack = current && $driver -ge 580 ]]; then echo cuda13
  elif [[ $driver -ge 525 ]]; then echo cuda12
  else
    echo "NVIDIA's driver $driver is too old for CUDA 12, which needs 525, so \
the CPU is used. Update the driver, then add ACCELERATOR=cuda12." >&2
    echo cpu
  fi
}

accelerator=$(find_accelerator)
[[ " $accelerators " = *" $accelerator "* ]] \
  || fail "ACCELERATOR=$accelerator is none of the $stack stack's: $accelerators."
locks=("$lock")
case $stack-$accelerator in
  *-cpu) ;;
  current-*) locks+=("locks/current-$accelerator.lock") ;;
  *) locks+=("xm_launch/$accelerator.lock") ;;
esac

stamp=$(cat "${locks[@]}" pyproject.toml setup.sh | sha256sum)
has_asked_python() {
  [ -z "${PYTHON:-}" ] || [ "$("$PYTHON" --version 2>/dev/null || true)" = \
    "$("$directory/bin/python" --version 2>/dev/null || true)" ]
}

if [ -z "${2:-}" ] && has_asked_python \
  && [ "$(sed -n 1p "$directory/.complete" 2>/dev/null || true)" = "$stamp" ]
then exit 0; fi

is_right_python() {
  [ -n "$1" ] && "$1" -c 'import sys
sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1:])' $2 >/dev/null 2>&1
}

find_python() {
  local candidate version
  if [ -n "${PYTHON:-}" ]; then
    is_right_python "$PYTHON" "$versions" && { echo "$PYTHON"; return; }
    fail "PYTHON=$PYTHON is not a Python ${versions// / or } that runs."
  fi
  for version in $versions; do
    for candidate in "python$version" python3 python \
        "$(command -v uv >/dev/null && uv python find "$version" 2>/dev/null || true)" \
        "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
      is_right_python "$candidate" "$version" && { echo "$candidate"; return; }
    done
  done
  # uv can install a missing Python.
  if command -v uv >/dev/null && uv python install "$newest" >/dev/null 2>&1; then
    candidate=$(uv python find "$newest") \
      && is_right_python "$candidate" "$versions" && { echo "$candidate"; return; }
  fi
  fail "no Python ${versions// / or } was found. Install one, then run make again:
  uv python install $newest      where uv is installed, or
  pyenv install $newest          where pyenv is installed, or
  apt install python$newest python$newest-venv   where Ubuntu has it.
A Python in an unusual place: make setup PYTHON=/path/to/python$newest"
}

python=$(find_python)
what="$directory with $("$python" --version) for $accelerator"
if [ "${2:-}" = --dry-run ]; then
  echo "Would set up $what, from ${locks[*]}"
  exit 0
fi
echo "Setting up $what (a few minutes the first time) ..."
rm -rf "$directory"
if command -v uv >/dev/null; then
  uv venv --quiet --python "$python" "$directory"
  # From another directory, because pyproject.toml's overrides do not apply to
  # every lock.
  install() { VIRTUAL_ENV="$PWD/$directory" uv --directory / pip install --quiet "$@"; }
else
  "$python" -m venv "$directory" || fail "the venv module is missing (Debian, \
Ubuntu: apt install python$newest-venv)."
  install() { "$directory/bin/python" -m pip install --quiet \
    --disable-pip-version-check "$@"; }
fi
for lock in "${locks[@]}"; do
  install --no-deps --require-hashes -r "$PWD/$lock"
done
if [ "$stack" != xm ]; then
  install --no-deps --no-build-isolation --editable "$PWD"
fi
printf '%s\n' "$stamp" "$accelerator" > "$directory/.complete"
echo "Ready: $directory/bin/python"
