"""Reads the checkpoints of Acme's own checkpointer."""

import os
import pathlib
from typing import Any

from acme import core
from acme.tf import savers


class _Restored(core.Saveable):
  """Receives the state in place of a learner."""

  state: Any = None

  def save(self) -> Any:
    return self.state

  def restore(self, state: Any):
    self.state = state


def restore_state(directory: str | os.PathLike) -> Any:
  """Returns the learner's state from a checkpoint that Acme wrote.

  Pass it to `acme_stac.save_policy` to make a file for `acme_stac.load_policy`.
  Acme pickles the state: read only checkpoints of your own runs.

  Args:
    directory: directory of the layout or experiment, made with add_uid=False;
      it contains `checkpoints/learner`.

  Raises:
    ValueError: if it has no checkpoint of a learner.
  """
  path = pathlib.Path(directory).expanduser().absolute()
  restored = _Restored()
  if (path / "checkpoints" / "learner" / "checkpoint").is_file():
    savers.Checkpointer(
      {"learner": restored}, directory=str(path), subdirectory="learner",
      add_uid=False,
    )
  if restored.state is None:
    raise ValueError(
      f"{path} has no checkpoint of a learner in checkpoints/learner. Without"
      " add_uid=False, Acme adds a folder named by a number: include it in the"
      " path."
    )
  return restored.state
