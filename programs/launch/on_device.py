"""Trains runs side by side in one compiled program, environments included.

The program is called for some updates at a time, about a second's worth; the
host writes logs and checkpoints meanwhile.
"""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from acme_stac.evaluation.text import counted
from programs.launch.ending import Interrupted, StopRequest
from programs.launch.modes import Launch
from programs.launch.progress import Progress
from programs.nodes.device_program import Chunk, DeviceProgram
from programs.nodes.failures import HopelessError
from programs.nodes.member import Interval, Member
from programs.nodes.rate import MovingRate
from programs.run.experiment import Experiment

# Bounds of the seconds that a call of the program should take.
_SHORTEST, _LONGEST = 0.05, 5.0
# Rows of many runs are so far apart that writing them takes at most this share
# of the time.
_ROW_SHARE = 0.05
# A call has at most so many times the updates of the one that was measured.
_GROWTH = 10


def run(launch: Launch):
  """Trains the runs to their end.

  Raises:
    Interrupted: after SIGINT or SIGTERM, with the checkpoints written.
    HopelessError: if they cannot go on.
  """
  with StopRequest() as stop:
    stop.has_work = False  # While the program is compiled.
    training = _Training(launch.experiments, launch.progress, stop)
    stop.has_work = True
    try:
      training.run()
    finally:
      training.close()
    if stop:
      raise Interrupted(stop.number)


class _Call(NamedTuple):
  """A call of the program.

  Attributes:
    chunk: what it returns, once the devices have computed it.
    updates: how many updates it does.
    step: updates of each run afterwards.
    started: when it was made.
  """

  chunk: Chunk
  updates: int
  step: int
  started: float


class _Training:
  """The runs and their progress."""

  def __init__(
    self,
    experiments: tuple[Experiment, ...],
    progress: Progress,
    stop: StopRequest,
  ):
    self._experiment = experiments[0]
    self._progress = progress
    self._stop = stop
    available = jax.local_devices()
    self._program = DeviceProgram(experiments, available)
    self._members = [
      Member(experiment, self._program.state_shapes)
      for experiment in experiments
    ]
    self._step = self._members[0].num_steps
    self._total = self._experiment.config.num_updates
    print(
      f"{counted(len(experiments), 'run')} on"
      f" {_describe_devices(experiments, self._program.devices, available)};"
      " compiling the program",
      flush=True,
    )
    self._state = self._program.start(
      self._step, [member.save() for member in self._members]
    )
    # Updates of the next call.
    self._size = 1
    self._rate = MovingRate()
    self._evaluation_due = self._next_evaluation(self._step - 1)
    self._cut_off = (0, 0)
    now = time.monotonic()
    self._received = self._last_row = self._last_save = now
    # Seconds between rows.
    self._row_seconds = self._experiment.log_every_seconds
    # Since the last row.
    self._updates, self._seconds = 0, 0.0
    self._ended: dict[str, np.ndarray] = {}
    self._metrics: dict[str, np.ndarray] = {}

  def run(self):
    """Calls the program until all updates are done or a signal came.

    The next call is made before the results of the last are looked at, so that
    the devices do not wait for the host.
    """
    last: _Call | None = None
    self._evaluate_if_due()
    while self._step < self._total and not self._stop:
      call = self._call()
      if last is not None:
        self._receive(last)
      last = call
      if (
        self._step >= min(self._evaluation_due, self._total)
        or self._checkpoint_is_due()
      ):
        self._receive(call)
        last = None
        self._evaluate_if_due()
        self._save_if_due()
    if last is not None:
      self._receive(last)
    if self._updates:
      self._write_rows(self._step)
    self._save(is_last=True)
    self._progress.show(self._status(self._step))

  def close(self):
    """Closes the logs."""
    for member in self._members:
      member.close()

  def _call(self) -> _Call:
    every = self._experiment.checkpoint_every_updates
    updates = min(
      self._size,
      self._total - self._step,
      self._evaluation_due - self._step,
      every - self._step % every,
    )
    started = time.monotonic()
    chunk = self._program.advance(self._state, updates)
    self._state = chunk.state
    self._step += updates
    return _Call(chunk, updates, self._step, started)

  def _receive(self, call: _Call):
    """Waits for a call; measures it and adds it to the logs."""
    metrics, ended = jax.device_get((call.chunk.metrics, call.chunk.ended))
    now = time.monotonic()
    # It began when it was made, or when the devices had done the one before.
    seconds = max(now - max(call.started, self._received), 1e-9)
    self._received = now
    target = min(max(self._experiment.log_every_seconds, _SHORTEST), _LONGEST)
    self._size = min(
      max(int(target * call.updates / seconds), 1), _GROWTH * call.updates
    )
    self._updates += call.updates
    self._seconds += seconds
    self._metrics = metrics
    self._ended = {
      name: self._ended.get(name, 0) + of for name, of in ended.items()
    }
    if now - self._last_row >= self._row_seconds:
      self._write_rows(call.step)
    for member in self._members:
      member.checkpoints.check_workdir()
    self._rate.add(call.step)
    self._progress.show(self._status(call.step))

  def _write_rows(self, step: int):
    """Writes the runs' rows after so many updates of each."""
    started = time.monotonic()
    for number, member in enumerate(self._members):
      member.write_rows(Interval(
        step,
        self._updates,
        self._seconds,
        {name: value[number] for name, value in self._metrics.items()},
        int(self._ended["episodes"][number]),
        float(self._ended["episode_return_sum"][number]),
        int(self._ended["episode_length_sum"][number]),
        len(self._members),
      ))
    self._last_row = time.monotonic()
    self._row_seconds = max(
      self._experiment.log_every_seconds,
      (self._last_row - started) / _ROW_SHARE,
    )
    self._updates, self._seconds, self._ended = 0, 0.0, {}

  def _status(self, step: int) -> dict[str, Any]:
    """Returns the state of the runs after so many updates of each."""
    config = self._experiment.config
    runs = len(self._members)
    returns = [
      member.episode_return for member in self._members
      if not math.isnan(member.episode_return)
    ]
    evaluations = [
      member.evaluation for member in self._members
      if member.evaluation is not None
    ]
    finished = step >= self._total
    rate = self._rate.per_second(finished)
    return {
      "runs": runs,
      "steps": step * config.steps_per_update,
      "budget": self._total * config.steps_per_update,
      "rate": None if rate is None else rate * runs * config.steps_per_update,
      "return": float(np.mean(returns)) if returns else None,
      "evaluation": float(np.mean(evaluations)) if evaluations else None,
      "evaluation_cut_off": self._cut_off,
      "finished": finished,
    }

  def _next_evaluation(self, step: int) -> int:
    """Returns the update, after a given one, at which an evaluation is due."""
    every = self._experiment.evaluation_every_steps
    steps = self._experiment.config.steps_per_update
    due = (step * steps // every + 1) * every
    return -(-due // steps)

  def _evaluate_if_due(self):
    is_last = self._step >= self._total
    if self._step < self._evaluation_due and not is_last:
      return
    self._evaluation_due = self._next_evaluation(self._step)
    if not self._experiment.evaluation_episodes:
      return
    episodes = self._program.evaluate(self._state, self._step)
    for number, member in enumerate(self._members):
      member.write_evaluation(self._step, _of_run(episodes, number))
    self._cut_off = int(episodes.cut_off.sum()), episodes.cut_off.size
    self._received = time.monotonic()

  def _checkpoint_is_due(self) -> bool:
    experiment = self._experiment
    return (
      not self._step % experiment.checkpoint_every_updates
      or time.monotonic() - self._last_save
      >= experiment.checkpoint_every_seconds
    )

  def _save_if_due(self):
    if not self._checkpoint_is_due():
      return
    self._last_save = time.monotonic()
    try:
      self._save()
    except OSError as error:
      logging.warning(
        "Checkpoints could not be written (%s). Training goes on; the next"
        " attempt is in %g s.",
        error, self._experiment.checkpoint_every_seconds,
      )

  def _save(self, is_last: bool = False):
    """Writes a checkpoint of every run.

    Begins with those that are behind: if the disk is full, no run gets ahead of
    the others by more than one checkpoint.
    """
    if self._step == min(m.checkpoints.step for m in self._members):
      return
    training = jax.device_get(self._state.training)
    for number, member in enumerate(self._members):
      member.restore(_of_run(training, number))
    failure: Exception | None = None
    for member in sorted(self._members, key=lambda m: m.checkpoints.step):
      if not is_last:
        member.checkpoints.save()
        continue
      try:
        member.checkpoints.save_last()
      except HopelessError as error:
        failure = failure or error  # The others may fit on their disks.
    if failure:
      raise failure


def _describe_devices(
  experiments: Sequence[Experiment],
  used: Sequence[jax.Device],
  available: Sequence[jax.Device],
) -> str:
  """Returns the devices in use, and what would use those that are idle."""
  kind, number = used[0].device_kind, len(available)
  if len(used) == number:
    return f"{counted(number, 'device')} ({kind})"
  spread = "runs" if len(experiments) > 1 else (
    "environments (--config.environments_per_actor)"
  )
  return (
    f"{len(used)} of {number} devices ({kind}): a number of {spread} that"
    f" {number} divides would use all"
  )


def _of_run(tree: Any, number: int) -> Any:
  """Returns the part of one run of arrays [M, ...]."""
  return jax.tree_util.tree_map(lambda x: x[number], tree)
