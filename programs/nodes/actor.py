"""The actor node: acts in environments and writes trajectories to a queue."""

import collections
import time
import uuid
from collections.abc import Callable
from typing import Any

import jax

from acme_stac import training
from acme_stac.networks import make_policy
from acme_stac.training.inference import Inference
from acme_stac.training.variables import VariableClient, VariableSource
from programs.nodes import building, groups, logs
from programs.nodes.environments import Environments
from programs.nodes.publishing import (
  BackgroundPublisher,
  DirectPublisher,
  Publisher,
)
from programs.nodes.randomness import Part, environment_seed, random_key
from programs.run.experiment import Experiment

# After waiting longer than this, an actor fetches parameters again.
_STALE_SECONDS = 0.005
# How often an actor asks whether the run is finished.
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
    inference: Inference | None = None,
    num_groups: int = 1,
  ):
    """Makes an actor, once the learner has sent parameters.

    Args:
      experiment: the run.
      index: number of the actor.
      replay: a `Writer`.
      variables: the source of parameters.
      counter: `RunCounter` or a client of it.
      should_stop: whether the program is ending.
      inference: compiled by `compile_inference`, which actors may share; one
        on the CPU by default.
      num_groups: groups of environments that take turns: one steps while
        inference runs for the others. Must divide the number of environments.
    """
    self._experiment = experiment
    self._index = index
    # Distinguishes this process from earlier ones of the same actor.
    self._life = uuid.uuid4().hex
    self._items = 0
    self._counter = counter
    self._finished = False
    # Also stops an actor that is blocked by a queue that nobody empties.
    self._should_stop = lambda: self._finished or should_stop()
    inference = inference or compile_inference(experiment, num_groups)
    # Seeds depend on the version, so that a restarted actor does not repeat
    # itself.
    (version,) = map(int, variables.get_variables(["version"]))

    self._client = VariableClient(variables, inference.device)
    self._groups = [
      self._make_group(number, num_groups, version, replay, inference)
      for number in range(num_groups)
    ]
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

  def _make_group(
    self,
    group: int,
    num_groups: int,
    version: int,
    replay: Any,
    inference: Inference,
  ) -> groups.Group:
    experiment = self._experiment
    path = (Part.ACTOR, self._index)
    members = experiment.environments_per_actor // num_groups

    def seed(number: int) -> int:
      again = (number,) if number else ()
      return group * members + environment_seed(
        experiment, version, *path, *again
      )

    adder = building.make_builder(
      experiment, self._should_stop
    ).make_adder(replay, experiment.environment_spec)
    key = random_key(experiment, version, *path)
    actor = training.Actor(
      inference,
      jax.random.fold_in(key, group) if group else key,
      self._client,
      adder,
      experiment.config.variable_update_period,
    )
    environments = Environments(experiment, members, seed)
    return groups.Group(environments, actor, adder, fetches=not group)

  def run_item(self, wait_for_variables: bool = False) -> bool:
    """Makes a trajectory in every environment and writes them to the queue.

    Args:
      wait_for_variables: wait for parameters whenever a fetch is due.

    Returns:
      False if the program is ending.

    Raises:
      HopelessError: if the environment failed too often.
    """
    if not groups.make_trajectories(
      self._groups, wait_for_variables, self._should_stop
    ):
      return False
    self._items += 1
    episodes = [
      episode for group in self._groups for episode in group.episodes
    ]
    self._returns.extend(episode.episode_return for episode in episodes)
    self._publisher.notify()
    for episode in episodes:
      self._episode_log.write({
        "actor_steps": self._num_steps,
        "environment": self._experiment.environment,
        **episode._asdict(),
      })
    self._write_log()
    return True

  def close(self):
    """Frees the environments and closes the logs."""
    for group in self._groups:
      group.close()
    self._log.close()
    self._episode_log.close()

  def publish(self):
    """Reports new returns to the counter; asks it whether the run is over."""
    returns = [self._returns.popleft() for _ in range(len(self._returns))]
    self._finished = self._counter.report_episodes(returns)

  @property
  def _num_steps(self) -> int:
    """Number of steps of the whole batch so far."""
    return self._groups[0].loop.num_steps

  def _totals(self) -> dict[str, float]:
    seconds = [group.seconds for group in self._groups]
    return {
      "steps": self._num_steps
      * self._experiment.environments_per_actor
      * self._experiment.config.action_repeat,
      "waiting": self._seconds_waiting,
      **{part: sum(each[part] for each in seconds) for part in seconds[0]},
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
      "environment_failures": sum(
        group.failures for group in self._groups
      ),
    })
    self._last_log, self._last = now, totals

  def run(self):
    """Makes items as the counter grants them, until the run is over."""
    self._client.update_and_wait()
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
        # Parameters go stale during a wait, and an actor that has time to wait
        # has time to fetch new ones.
        if not self.run_item(wait_for_variables=waited > _STALE_SECONDS):
          return
        started = time.monotonic()
    finally:
      self._publisher.close()


def compile_inference(
  experiment: Experiment, num_groups: int = 1, device: Any = None
) -> Inference:
  """Compiles the actors' inference from shapes.

  Args:
    experiment: the run.
    num_groups: groups of an actor's environments.
    device: the device to infer on; the CPU by default.
  """
  builder = building.make_builder(
    experiment, lambda: False, inference_device=device
  )
  spec, config = experiment.environment_spec, experiment.config
  networks = builder.make_networks(spec)
  inference = builder.make_inference(make_policy(networks, config))
  inference.compile(
    experiment.environments_per_actor // num_groups, networks, spec, config
  )
  return inference
