"""Calls functions of a user's Python files: configurations and sweeps."""

import pathlib
import runpy
import traceback
from typing import Any

from programs.run.errors import UserError

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def call(path: str, function: str, flag: str, folder: str) -> Any:
  """Calls a function of a Python file.

  Args:
    path: path of the file, optionally followed by a colon and the function's
      argument.
    function: name of the function.
    flag: what names the file, for messages.
    folder: directory of the project's own files of this kind.

  Returns:
    What the function returns.

  Raises:
    UserError: if the file cannot be read, has no such function, or raises.
  """
  file, _, argument = path.partition(":")
  try:
    module = runpy.run_path(file)
    if function not in module:
      raise UserError(f"{flag}: {file} has no function {function}().")
    # Without an argument, the function's default applies.
    return module[function](*[argument] * bool(argument))
  except OSError as error:
    known = ", ".join(known_files(folder))
    raise UserError(
      f"{flag}: {file} cannot be read ({error.strerror}).\nThis project's"
      f" files: {known}"
    ) from error
  except UserError:
    raise
  except ValueError as error:  # The project's own files raise clear ones.
    raise UserError(f"{flag}: {error}") from error
  # A user's file may raise anything, and end the program without a word.
  except (Exception, SystemExit) as error:
    place = traceback.extract_tb(error.__traceback__)[-1]
    raise UserError(
      f"{flag}: {file} raised {type(error).__name__}: {error}"
      f" ({place.filename}, line {place.lineno})."
    ) from error


def known_files(folder: str) -> list[str]:
  """Returns the project's Python files in a folder.

  Their paths are relative if the current directory is the project's.
  """
  here = pathlib.Path()
  root = here if here.samefile(_ROOT) else _ROOT
  return sorted(map(str, (root / folder).glob("[a-z]*.py")))
