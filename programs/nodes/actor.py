"""The actor's node: environments, whose trajectories go to a queue."""

import collections
import time
import uuid
from collections.abc import Callable
from typing import Any

from acme_stac.environment_loop import BatchedEnvironmentLoop
from acme_stac.environments import EnvironmentFailedError
from acme_stac.networks import make_policy
from acme_stac.training.adder import NonFiniteError
from acme_stac.training.variables import VariableSource
from programs.nodes import building, logs
from programs.nodes.environments import Environments
from programs.nodes.publishing import (
  BackgroundPublisher,
  DirectPublisher,
  Publisher,
)
from programs.nodes.randomness import Part, environment_seed, random_key
from programs.run.experiment import Experiment

# An actor that waited for longer than this fetches parameters again.
_STALE_SECONDS = 0.005
# How often it asks whether the run is finished.
_REPEAT_SECONDS = 2.0


class Actor:
  """An actor with its environments and logs."""

  def __init__(
    self,
    experiment: Experiment,
    index: int,
    replay: Any,
    variables: VariableSource,
    counter: Any,
    should_stop: Callable[[], bool],
    device: Any = None,
  ):
    """Makes an actor, once the learner has sent parameters.

    Args:
      experiment: the run.
      index: which actor.
      replay: a `Writer`.
      variables: where parameters come from.
      counter: `RunCounter` or a client of it.
      should_stop: whether the program is ending.
      device: of inference; the CPU by default.
    """
    self._experiment = experiment
    self._index = index
    # Tells apart processes that are this actor, one after the other.
    self._life = uuid.uuid4().hex
    self._items = 0
    self._counter = counter
    self._finished = False
    # An actor blocked by a full queue that nobody empties any more stops too.
    self._should_stop = lambda: self._finished or should_stop()
    builder = building.make_builder(
      experiment, self._should_stop, inference_device=device
    )
    spec = experiment.environment_spec
    policy = make_policy(builder.make_networks(spec), experiment.config)
    # An actor that is restarted does not repeat what it did before.
    (version,) = map(int, variables.get_variables(["version"]))

    def seed(number: int) -> int:
      path = (Part.ACTOR, index, number) if number else (Part.ACTOR, index)
      return environment_seed(experiment, version, *path)

    self._environments = Environments(
      experiment, experiment.environments_per_actor, seed
    )
    self._environment = self._environments.make()
    self._adder = builder.make_adder(replay, spec)
    self._actor = builder.make_actor(
      random_key(experiment, version, Part.ACTOR, index),
      policy,
      variables,
      self._adder,
    )
    self._loop = BatchedEnvironmentLoop(self._environment, self._actor)
    self._steps_per_item = (
      experiment.config.steps_per_trajectory
      * experiment.environments_per_actor
    )
    self._log = logs.make_logger(experiment, f"actor_{index}")
    self._episode_log = logs.make_logger(experiment, f"episodes_actor_{index}")
    self._returns = collections.deque[float]()
    self._publisher: Publisher = DirectPublisher(self.publish)
    self._seconds_waiting = 0.0
    self._last_log = time.monotonic()
    self._last = self._totals()

  def run_item(self, wait_for_variables: bool = False) -> bool:
    """Makes one item for the queue.

    Args:
      wait_for_variables: fetch parameters in the foreground.

    Returns:
      False if the program is ending.

    Raises:
      HopelessError: if the environment failed too often.
    """
    items = self._adder.num_items
    episodes = []
    while self._adder.num_items == items:
      if self._should_stop():
        return False
      try:
        episodes += self._loop.step(wait_for_variables)
      except EnvironmentFailedError as error:
        self._replace_environment(error)
      except NonFiniteError as error:
        self._replace_environment(self._environment.failure(str(error)))
    self._items += 1
    self._returns.extend(episode.episode_return for episode in episodes)
    self._publisher.notify()
    for episode in episodes:
      self._episode_log.write({
        "actor_steps": self._loop.num_steps,
        "environment": self._experiment.environment,
        **episode._asdict(),
      })
    self._write_log()
    return True

  def _replace_environment(self, error: Exception):
    self._environments.record_failure(self._environment, error)
    self._environment = self._environments.make()
    self._loop.replace_environment(self._environment)

  def close(self):
    """Frees the environments and closes the logs."""
    self._environment.close()
    self._log.close()
    self._episode_log.close()

  def publish(self):
    """Reports new returns to the counter, and learns if the run is finished."""
    returns = [self._returns.popleft() for _ in range(len(self._returns))]
    self._finished = self._counter.report_episodes(returns)

  def _totals(self) -> dict[str, float]:
    return {
      "steps": self._loop.num_steps
      * self._experiment.environments_per_actor
      * self._experiment.config.action_repeat,
      "blocked": self._adder.seconds_blocked,
      "waiting": self._seconds_waiting,
      **self._loop.seconds,
    }

  def _write_log(self):
    now = time.monotonic()
    elapsed = now - self._last_log
    if elapsed < self._experiment.log_every_seconds:
      return
    totals = self._totals()
    delta = {name: totals[name] - self._last[name] for name in totals}
    self._log.write({
      "actor_environment_steps": totals["steps"],
      "environment_steps_per_second": delta["steps"] / elapsed,
      "share_environment": delta["environment"] / elapsed,
      "share_inference": delta["inference"] / elapsed,
      "share_writing": (delta["writing"] - delta["blocked"]) / elapsed,
      "share_blocked_by_queue": delta["blocked"] / elapsed,
      "share_waiting_for_learner": delta["waiting"] / elapsed,
      "environment_failures": self._environments.failures,
    })
    self._last_log, self._last = now, totals

  def run(self):
    """Makes items as the counter grants them, until the run is over."""
    self._actor.fetch_variables()
    self._publisher = BackgroundPublisher(self.publish, _REPEAT_SECONDS)
    try:
      started = time.monotonic()
      while not self._should_stop() and not self._publisher.failed:
        granted = self._counter.reserve(
          self._index, self._life, self._items, self._steps_per_item
        )
        if granted == "finished":
          return
        if granted == "wait":
          continue
        waited = time.monotonic() - started
        self._seconds_waiting += waited
        # Parameters fetched before a wait are stale after it, and where there
        # is time to wait there is time to fetch.
        if not self.run_item(wait_for_variables=waited > _STALE_SECONDS):
          return
        started = time.monotonic()
    finally:
      self._publisher.close()
