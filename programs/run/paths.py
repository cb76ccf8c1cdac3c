"""Checks that results can be written, before the work is done."""

import argparse
import os
import pathlib
import tempfile
from collections.abc import Iterable

from programs.run.errors import UserError


def path(text: str) -> pathlib.Path:
  """Converts an argument to a path; rejects an empty one."""
  if not text:  # pathlib would take it for the current folder.
    raise argparse.ArgumentTypeError("is empty: name a directory")
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:  # No such user.
    raise argparse.ArgumentTypeError(str(error)) from error


def cannot_be_written(
  path: pathlib.Path, reason: object, flag: str
) -> UserError:
  """Returns the error for a path that a user chose with `flag`."""
  return UserError(
    f"{path} cannot be written: {reason}. Fix that, or choose another {flag}."
  )


def make_directory(directory: pathlib.Path, flag: str):
  """Makes a directory of results, with its parents.

  Args:
    directory: the directory, which may exist.
    flag: the flag that names the directory.

  Raises:
    UserError: if no file can be created in it.
  """
  try:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
      pass
  except OSError as error:
    raise cannot_be_written(directory, error, flag) from error


def check_files(files: Iterable[pathlib.Path], flag: str):
  """Checks that files can be written or replaced.

  Args:
    files: the files, which need not exist.
    flag: the flag that names their place.

  Raises:
    UserError: if one of them exists and is read-only or not a regular file.
  """
  for file in files:
    if not os.path.lexists(file):
      continue
    if not file.is_file():
      raise cannot_be_written(file, "it is not a regular file", flag)
    if not os.access(file, os.W_OK):
      raise cannot_be_written(file, "permission denied", flag)
