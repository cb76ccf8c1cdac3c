"""The work directory of a run: what may be in it, and whether it is still it.

Imports only the standard library and `machine`.
"""

import os
import pathlib

from programs.run import machine
from programs.run.errors import UserError

_DIRECTORIES = (
  "logs", "logs/nodes", "checkpoints", "checkpoints/kept", "tensorboard",
  ".nodes", "plots",
)
_FILES = (
  "config.json", "config.tmp", "logs/*.csv", "logs/nodes/*.log",
  "checkpoints/.checkpoint_*", "plots/*.png",
)


def make(workdir: pathlib.Path):
  """Makes a work directory, or checks one that exists.

  Raises:
    UserError: if it cannot be written, or if something else is where one of
      its directories or files should be.
  """
  machine.make_directory(workdir, "--workdir")
  for name in _DIRECTORIES:
    directory = workdir / name
    # A link could lead anywhere, and this directory is removed with all in it.
    if name == ".nodes" and directory.is_symlink():
      raise UserError(
        f"{directory} is a link. Remove it, or choose another --workdir."
      )
    if os.path.lexists(directory):
      machine.make_directory(directory, "--workdir")
  for pattern in _FILES:
    machine.check_files(sorted(workdir.glob(pattern)), "--workdir")
  machine.make_directory(workdir / "logs", "--workdir")


class Watch:
  """Notices that a work directory is removed or replaced during a run."""

  def __init__(self, workdir: pathlib.Path):
    """Remembers what is in a work directory now."""
    self._workdir = workdir
    self._lock = _identity(workdir / ".lock")
    self._expected = [
      name for name in ("config.json", "logs") if (workdir / name).exists()
    ]

  def is_intact(self) -> bool:
    """Returns whether everything that the run needs is still there."""
    return _identity(self._workdir / ".lock") == self._lock and all(
      (self._workdir / name).exists() for name in self._expected
    )

  def is_anothers(self) -> bool:
    """Returns whether another run has taken the place of this one."""
    return _identity(self._workdir / ".lock") not in (None, self._lock)


def _identity(path: pathlib.Path) -> tuple[int, int] | None:
  """Returns which file is at a path; None if there is none."""
  try:
    status = path.stat()
  except (FileNotFoundError, NotADirectoryError):
    return None
  return status.st_dev, status.st_ino
