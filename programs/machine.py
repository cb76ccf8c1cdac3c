"""What a run needs of its machine; the standard library does for this file."""

import hashlib
import importlib
import os
import pathlib
import platform
import sys


class UserError(Exception):
  """What a user can mend; its text says how."""


# What every run imports, in the order in which errors explain most.
_MODULES = (
  "numpy",
  "jax",
  "haiku",
  "ml_collections",
  "gymnasium",
  "ale_py",
  "reverb",
  "launchpad",
  "courier",
  "acme",
)


def use_compilation_cache():
  """Keeps what JAX compiles for later runs of this user, in every process.

  Must come before JAX is imported. JAX_COMPILATION_CACHE_DIR, if set, stays in
  force; an empty one is no cache.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  # Hosts that share a home directory must not share code for other processors.
  directory = (
    pathlib.Path(home).expanduser() / "acme_stac" / f"jax-{_processor()}"
  )
  try:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  except OSError:
    return  # Every run compiles, then.
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
  # Inference compiles faster than the default limit of a second, but every
  # process of a run does it.
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _processor() -> str:
  """Returns a short name of what this machine's code is compiled for."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:
    text = ""
  features = sorted({
    line for line in text.splitlines()
    if line.startswith(("model name", "flags", "Features"))
  })
  kind = "\n".join([platform.machine(), *features])
  return hashlib.sha256(kind.encode()).hexdigest()[:12]


def check():
  """Raises UserError where the distributed program cannot run at all."""
  if sys.version_info[:2] != (3, 10) or sys.platform != "linux":
    version = ".".join(map(str, sys.version_info[:3]))
    raise UserError(
      f"This is Python {version} on {sys.platform}, but Launchpad and Reverb"
      " exist for Python 3.10 on Linux x86-64 only. 'make setup' makes such an"
      " environment in .venv; run .venv/bin/python -m programs.train."
    )
  for module in _MODULES:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      raise UserError(
        f"{error}. 'make setup' installs everything in .venv; run"
        " .venv/bin/python -m programs.train."
      ) from error
    except ImportError as error:
      raise UserError(
        f"{module} cannot be loaded: {error}.\nIf this names a file such as"
        " libX.so.1, a system library is missing: install the package of your"
        " distribution that has it (on Debian and Ubuntu, 'apt-file search"
        " libX.so.1' names it). Otherwise the versions do not fit: 'make setup'"
        " installs those that do."
      ) from error
