"""The learner node: updates, writes checkpoints and informs other nodes."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from acme_stac.training.builder import queue_metrics
from acme_stac.training.local_queue import Queue
from programs.nodes import building, logs
from programs.nodes.checkpoints import Checkpoints
from programs.nodes.failures import EndedError
from programs.nodes.publishing import (
  BackgroundPublisher,
  DirectPublisher,
  Publisher,
)
from programs.nodes.randomness import Part, random_key
from programs.run.experiment import Experiment

# The state is published again after this time, for restarted nodes.
_REPEAT_SECONDS = 2.0
# Minimum time between two looks at the queues.
_LOOK_SECONDS = 1.0


class _Supply(NamedTuple):
  """The learner's supply of trajectories.

  Attributes:
    taken: trajectories that this process has taken from the queues.
    queued: trajectories in the queues; None if they were not asked or did not
      answer.
    starving: whether the learner is waiting, the queues are empty, and no
      trajectory has come since the previous look.
  """

  taken: int
  queued: int | None
  starving: bool


class Learner:
  """The learner, which also writes checkpoints and publishes its variables."""

  def __init__(
    self,
    experiment: Experiment,
    replay: Queue,
    counter: Any,
    publish_variables: Callable[[Any], int],
    should_stop: Callable[[], bool],
    devices: Sequence[Any] | None = None,
    shares_devices: bool = False,
    checkpoint_every_seconds: float | None = None,
  ):
    """Makes the learner and restores the newest checkpoint.

    Args:
      experiment: the run.
      replay: the queue of trajectories.
      counter: `RunCounter` or a client of it.
      publish_variables: makes the learner's newest variables available to
        actors, and returns their version; see `variables`.
      should_stop: whether the program is ending.
      devices: the devices to learn on; all local ones by default.
      shares_devices: whether actors infer on the same devices.
      checkpoint_every_seconds: time between checkpoints; the experiment's by
        default.

    Raises:
      HopelessError: if no checkpoint can be read.
    """
    self._experiment = experiment
    self._counter = counter
    self._replay = replay
    self._publish_variables = publish_variables
    self._publisher: Publisher = DirectPublisher(self.publish)
    self._should_stop = should_stop
    builder = building.make_builder(
      experiment, self._stopping, learner_devices=devices
    )
    self._dataset = builder.make_batches(replay)
    self._trajectories_per_item = builder.trajectories_per_item
    self._episode_return = float("nan")
    self._logger = logs.make_logger(experiment, "learner", dashboards=True)
    self._learner = builder.make_learner(
      random_key(experiment, 0, Part.LEARNER),
      builder.make_networks(experiment.environment_spec),
      self._dataset,
      write_row=self._write_row,
      extra_metrics=lambda: queue_metrics(replay, self._dataset),
      shares_devices=shares_devices,
      environment_spec=experiment.environment_spec,
    )
    if checkpoint_every_seconds is None:
      checkpoint_every_seconds = experiment.checkpoint_every_seconds
    self._checkpoints = Checkpoints(
      experiment, self._learner, checkpoint_every_seconds
    )
    self._initial_step = self._learner.num_steps
    self._last_look = float("-inf")
    # Trajectories taken by the last look, if the learner was waiting then.
    self._waited_after: int | None = None

  def _write_row(self, row: Mapping[str, Any]):
    self._logger.write({**row, "episode_return": self._episode_return})

  def _stopping(self) -> bool:
    return self._publisher.failed or self._should_stop()

  @property
  def done(self) -> bool:
    """Whether all updates of the run are done."""
    return self._learner.num_steps >= self._experiment.config.num_updates

  @property
  def saved_step(self) -> int:
    """Updates in the newest checkpoint; 0 if there is none."""
    return self._checkpoints.step

  def wait_until_compiled(self):
    """Waits until the update is compiled or its compilation has failed."""
    self._learner.wait_until_compiled()

  def step(self) -> bool:
    """Does one update; returns False if there is no more data.

    Raises:
      HopelessError: if the work directory has been removed or replaced.
    """
    try:
      self._learner.step()
    except StopIteration:
      return False
    if self.done:
      self._learner.write_log()
    self._publisher.notify()
    self._checkpoints.save_if_due()
    return True

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns the newest variables by name, on the learner's devices."""
    return self._learner.device_variables(names)

  def publish(self):
    """Publishes the newest variables, then reports progress to the counter.

    The order matters: once the counter lets actors go on, they fetch variables.
    """
    version = self._publish_variables(self._learner)
    supply = self._look_at_data()
    config = self._experiment.config
    steps = config.steps_per_trajectory
    mean_return = self._counter.report_learner(
      version * config.steps_per_update,
      self._dataset.num_dropped * steps,
      self._initial_step * config.steps_per_update + supply.taken * steps,
      None if supply.queued is None else supply.queued * steps,
      supply.starving,
    )
    if mean_return is not None:
      self._episode_return = mean_return

  def _look_at_data(self) -> _Supply:
    # Read before the queues are asked, so that a trajectory in transit counts
    # neither as taken nor as queued, rather than as both.
    taken = self._dataset.num_taken
    waiting = self._dataset.waiting
    if time.monotonic() - self._last_look < _LOOK_SECONDS:
      return _Supply(taken, None, False)
    items = self._replay.num_items
    starving = waiting and items == 0 and taken == self._waited_after
    self._waited_after = taken if waiting and items == 0 else None
    self._last_look = time.monotonic()
    if items is not None:
      items *= self._trajectories_per_item
    return _Supply(taken, items, starving)

  def close(self):
    """Writes the last checkpoint and closes the log.

    Raises:
      HopelessError: if the checkpoint cannot be written.
    """
    try:
      self._checkpoints.save_last()
    finally:
      self._logger.close()

  def run(self):
    """Learns until the budget is used up or the program is stopped."""
    try:
      self.publish()
    except EndedError:
      return
    self._publisher = BackgroundPublisher(self.publish, _REPEAT_SECONDS)
    try:
      while not self.done and not self._stopping():
        if not self.step():
          break
    finally:
      try:
        self.close()
      finally:
        self._publisher.close()
    if self.done:
      self._counter.finish()
