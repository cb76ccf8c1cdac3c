"""Whether this machine can run the program; needs the standard library only."""

import importlib
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
