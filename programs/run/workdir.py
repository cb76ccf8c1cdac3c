"""The work directory of a run: making, locking and watching it."""

import fcntl
import os
import pathlib
import time
from typing import Any, BinaryIO

from acme_stac.evaluation.text import counted, listed_briefly, printable
from programs.run import paths
from programs.run.errors import UserError

_FLAG = "--workdir"


def make(workdir: pathlib.Path):
  """Makes a work directory, or checks one that exists.

  Raises:
    UserError: if the run cannot write to it.
  """
  for directory in (workdir, workdir / "logs"):
    paths.make_directory(directory, _FLAG)
  paths.check_files(
    [workdir / "config.json", *workdir.glob("logs/*.csv")], _FLAG
  )


def check_is_run(path: pathlib.Path):
  """Raises UserError for a directory of runs side by side."""
  if path.is_dir() and (below := runs_below(path)):
    names = listed_briefly(run.relative_to(path) for run in below)
    raise UserError(
      f"{path} has {counted(len(below), 'run')} in directories below it. Give"
      f" one of them: {names}."
    )


def runs_below(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Returns the work directories of runs side by side (--seeds, --vary)."""
  found = [
    path.parent
    for pattern in ("[0-9]*/config.json", "*=*/**/config.json")
    for path in workdir.glob(pattern)
  ]
  # 2 comes before 10.
  found.sort(key=lambda path: (path.parent, len(path.name), path.name))
  return found


def lock(directory: pathlib.Path, patience_seconds: float = 40.0) -> BinaryIO:
  """Takes the lock of a work directory.

  Waits for another run, since one that was just killed takes some seconds to
  end. The directory's contents may have changed when this returns.

  Args:
    directory: the work directory.
    patience_seconds: how long to wait for another run.

  Returns:
    The open file that holds the lock; child processes may inherit it.

  Raises:
    UserError: if another run holds it, or the lock's file cannot be opened.
  """
  path = directory / ".lock"
  paths.check_files([path], _FLAG)
  deadline = time.monotonic() + patience_seconds
  waiting = False
  while True:
    try:
      file = open(path, "ab")  # noqa: SIM115
    except OSError as error:
      raise paths.cannot_be_written(path, error.strerror, _FLAG) from error
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # The other run's directory may have been removed meanwhile.
      if _identity(path) == _identity(file.fileno()):
        return file
    except BlockingIOError as error:
      if time.monotonic() > deadline:
        file.close()
        raise UserError(
          f"Another run uses {directory}. Stop it, or choose another {_FLAG}."
        ) from error
      if not waiting:
        waiting = True
        print(
          f"Waiting for another run in {printable(directory)} to end ...",
          flush=True,
        )
    except OSError:
      return file  # Not every file system has locks.
    file.close()
    time.sleep(0.2)


class Watch:
  """Notices when a work directory is removed or replaced during a run."""

  def __init__(self, workdir: pathlib.Path):
    """Remembers what is in a work directory now."""
    self._paths = (workdir / ".lock", workdir / "config.json")
    self._begun_with = self._now()

  def _now(self) -> list[Any]:
    lock, config = self._paths
    return [_identity(lock), config.exists()]

  def is_intact(self) -> bool:
    """Returns whether the run's directory is still there, and still its own."""
    return self._now() == self._begun_with


def _identity(file: pathlib.Path | int) -> tuple[int, int] | None:
  """Returns which file a path or descriptor leads to; None without one."""
  try:
    status = os.stat(file)
  except (FileNotFoundError, NotADirectoryError):
    return None
  return status.st_dev, status.st_ino
