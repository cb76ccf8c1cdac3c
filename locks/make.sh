#!/usr/bin/env bash
# Brings all locks up to date with pyproject.toml; needs uv. --upgrade takes new
# versions.
set -euo pipefail
cd "$(dirname "$0")/.."

# compile FILE TITLE ARGUMENTS...: writes FILE, with TITLE as its first lines.
# Keeps the versions that FILE already has.
compile() {
  local file=$1 title=$2
  shift 2
  uv pip compile --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --quiet "$@" --output-file "$file"
  sed -i '/^#/d' "$file"
  { printf '# %s\n' "$title" "Made by 'make lock'."; cat "$file"; } > "$file.tmp"
  mv "$file.tmp" "$file"
}

linux() { echo --python-version 3.10 --python-platform "x86_64-manylinux_2_$1"; }
# Locks of the current stack are for Python 3.11 to 3.13. --no-config ignores
# pyproject.toml's overrides, which are only for the distributed stack.
any_python="--no-config --python-version 3.11 --universal"

compile requirements.lock \
  "The whole environment (Linux x86-64, Python 3.10), installed without
# dependency resolution." \
  pyproject.toml --all-extras $(linux 28) "$@"
compile requirements-current.lock \
  "The one-host layer and its tests (Python 3.11 to 3.13), installed without
# dependency resolution." \
  pyproject.toml - --extra train --extra on_device --extra test $any_python \
  "$@" <<< dm-control --override <(
    # gymnax 1.0.1 works with JAX 0.12 and Gymnasium 1.4, but excludes them.
    printf '%s\n' "labmaze ; python_version < '3.13'" jax gymnasium
  )

# The packages that an accelerator adds must match the JAX of its lock.
compile xm_launch/cuda12.lock "What NVIDIA GPUs add to requirements.lock." \
  --no-config $(linux 31) - <<< "jax-cuda12-plugin[with-cuda]==0.6.2"
compile xm_launch/tpu.lock "What TPUs add to requirements.lock." \
  --no-config $(linux 31) - <<< "libtpu==0.0.17.*"
for accelerator in cuda12 cuda13 tpu; do
  sed -nE "s/^jax==(.*) \\\\$/jax[$accelerator]==\1/p" requirements-current.lock |
    compile "locks/current-$accelerator.lock" \
      "What ACCELERATOR=$accelerator adds to requirements-current.lock." \
      $any_python --constraints requirements-current.lock - \
      $(for package in certifi charset-normalizer idna jax jaxlib ml-dtypes numpy \
          opt-einsum requests scipy urllib3
        do echo "--no-emit-package $package"; done)
done
compile xm_launch/requirements.lock "XManager and what it needs: .venv-xm." \
  --no-config $(linux 31) - <<< "xmanager==0.8.5.post1"
