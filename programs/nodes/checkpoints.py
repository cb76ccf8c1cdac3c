"""When the learner's checkpoints are written, and where to."""

import logging
import time
from typing import Any

from acme_stac import checkpointing
from acme_stac.evaluation.text import counted
from programs.nodes.failures import HopelessError
from programs.run import experiment as experiment_lib
from programs.run import workdir
from programs.run.experiment import Experiment

# Least time between two looks whether the work directory is still there.
_LOOK_SECONDS = 1.0


class Checkpoints:
  """Restores and writes the checkpoints of a run.

  Attributes:
    step: updates in the newest checkpoint; 0 if there is none.
  """

  def __init__(
    self, experiment: Experiment, learner: Any, every_seconds: float
  ):
    """Restores the newest checkpoint if there is one.

    Args:
      experiment: the run.
      learner: has `num_steps`, `save` and `restore`.
      every_seconds: time between checkpoints. There is one after every
        `experiment.checkpoint_every_updates` as well.

    Raises:
      HopelessError: if there are checkpoints but none can be read.
    """
    self._experiment = experiment
    self._learner = learner
    self._every_seconds = every_seconds
    self._seconds_before = 0.0
    self._number = 0
    try:
      restored = checkpointing.load(experiment.checkpoints, learner.save())
    except checkpointing.CheckpointError as error:
      raise HopelessError(f"The learner cannot begin. {error}") from error
    if restored is not None:
      state, metadata = restored
      learner.restore(state)
      self._seconds_before = metadata.get("training_seconds", 0.0)
      self._number = metadata.get("number", 0)
    self.step = learner.num_steps
    self._started = self._last = time.monotonic()
    self._workdir = workdir.Watch(experiment.workdir)
    self._next_look = self._started + _LOOK_SECONDS
    self._removed: HopelessError | None = None

  def save_if_due(self):
    """Writes a checkpoint if it is time to.

    A checkpoint that cannot be written, because the disk is full for example,
    is a warning: training goes on.

    Raises:
      HopelessError: if the work directory has been removed.
    """
    updates = self._learner.num_steps
    if (
      updates % self._experiment.checkpoint_every_updates
      and time.monotonic() - self._last < self._every_seconds
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

  def save(self):
    """Writes a checkpoint unless the newest one is of this step.

    Raises:
      HopelessError: if the work directory has been removed.
      OSError: if it cannot be written.
    """
    self._check_workdir()
    if self._learner.num_steps != self.step:
      self._write()

  def save_last(self):
    """Writes the last checkpoint.

    Raises:
      HopelessError: if it cannot be written.
    """
    try:
      self.save()
    except OSError as error:
      raise HopelessError(
        f"The last checkpoint could not be written: {error}. What was learned"
        " since the one before is lost."
      ) from error

  def _write(self):
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
      keep=experiment.checkpoints_to_keep,
      keep_one_in=experiment.checkpoints_keep_one_in,
    )
    self._number += 1
    self.step = step

  def check_workdir_if_due(self):
    """Looks about once a second whether the work directory is still there.

    Raises:
      HopelessError: if it has been removed. What resuming needs has been
        written again, unless another run is there now.
    """
    now = time.monotonic()
    if now >= self._next_look:
      self._next_look = now + _LOOK_SECONDS
      self._check_workdir()

  def _check_workdir(self):
    if self._removed is None and not self._workdir.is_intact():
      self._removed = self._rescue()
    if self._removed is not None:
      raise self._removed

  def _rescue(self) -> HopelessError:
    """Writes a removed work directory again; returns what to raise."""
    where = self._experiment.workdir
    updates = counted(self._learner.num_steps, "update")
    if self._workdir.is_anothers():
      return HopelessError(
        f"{where} has been replaced by that of another run, so this run was"
        f" stopped. What it learned in {updates} is lost."
      )
    try:
      where.mkdir(parents=True, exist_ok=True)
      experiment_lib.write_config(self._experiment)
      self._write()
    except OSError as error:
      return HopelessError(
        f"{where} was removed during training and cannot be written again"
        f" ({error}), so the run was stopped."
      )
    # Logs are open in all processes and cannot be written again.
    return HopelessError(
      f"{where}, or a part of it, was removed during training, so the run was"
      f" stopped. config.json and a checkpoint after {updates}"
      " have been written again; logs that were removed are lost."
    )
