"""Restores and writes the learner's checkpoints."""

import logging
import time
from typing import Any

from acme_stac import checkpointing
from programs.nodes.failures import HopelessError
from programs.run import workdir
from programs.run.experiment import Experiment

# Least time between two looks at the work directory.
_LOOK_SECONDS = 1.0


class Checkpoints:
  """Restores and writes the checkpoints of a run.

  Attributes:
    step: updates in the newest checkpoint; 0 if there is none.
  """

  def __init__(
    self,
    experiment: Experiment,
    learner: Any,
    every_seconds: float,
    keep: int | None = None,
  ):
    """Restores the newest checkpoint if there is one.

    Args:
      experiment: the run.
      learner: has `num_steps`, `save` and `restore`.
      every_seconds: time between checkpoints. One is also written every
        `experiment.checkpoint_every_updates` updates.
      keep: number of newest checkpoints to keep; the experiment's by default.

    Raises:
      HopelessError: if there are checkpoints but none can be read.
    """
    self._experiment = experiment
    self._learner = learner
    self._every_seconds = every_seconds
    self._keep = experiment.checkpoints_to_keep if keep is None else keep
    try:
      restored = checkpointing.load(experiment.checkpoints, learner.save())
    except checkpointing.CheckpointError as error:
      raise HopelessError(f"The learner cannot begin. {error}") from error
    metadata: dict[str, Any] = {}
    if restored is not None:
      state, metadata = restored
      learner.restore(state)
    self._seconds_before = metadata.get("training_seconds", 0.0)
    self._number = metadata.get("number", 0)
    self.step = learner.num_steps
    self._started = self._last = time.monotonic()
    self._workdir = workdir.Watch(experiment.workdir)
    self._next_look = 0.0

  def save_if_due(self):
    """Writes a checkpoint if one is due, and checks the work directory.

    If it cannot be written, for example because the disk is full, logs a
    warning: training goes on.

    Raises:
      HopelessError: if the work directory has been removed or replaced.
    """
    now = time.monotonic()
    if now >= self._next_look:
      self._next_look = now + _LOOK_SECONDS
      self.check_workdir()
    if (
      self._learner.num_steps % self._experiment.checkpoint_every_updates
      and now - self._last < self._every_seconds
    ):
      return
    try:
      self.save()
    except OSError as error:
      logging.warning(
        "The checkpoint could not be written (%s). Training goes on; the next"
        " attempt is in %g s.",
        error, self._every_seconds,
      )

  def save_last(self):
    """Writes the last checkpoint.

    Raises:
      HopelessError: if it cannot be written.
    """
    try:
      self.save()
    except OSError as error:
      raise HopelessError(
        f"The last checkpoint of {self._experiment.workdir} could not be"
        f" written: {error}. Updates since the previous one are lost."
      ) from error

  def check_workdir(self):
    """Raises HopelessError if the work directory was removed or replaced."""
    if not self._workdir.is_intact():
      raise HopelessError(
        f"{self._experiment.workdir}, or a part of it, was removed or replaced"
        " during training, so the run was stopped. Updates since the last"
        " checkpoint are lost."
      )

  def save(self):
    """Writes a checkpoint unless the newest one has the same step.

    Raises:
      OSError: if it cannot be written.
      HopelessError: if the work directory has been removed or replaced.
    """
    self.check_workdir()
    if self._learner.num_steps == self.step:
      return
    self._last = time.monotonic()
    experiment = self._experiment
    step = self._learner.num_steps
    checkpointing.save(
      experiment.checkpoints,
      step,
      self._learner.save(),
      {
        **experiment.to_json(),
        "number": self._number + 1,
        "training_seconds": self._seconds_before + self._last - self._started,
        "environment_steps": step * experiment.config.steps_per_update,
      },
      keep=self._keep,
      keep_one_in=experiment.checkpoints_keep_one_in,
    )
    self._number += 1
    self.step = step
