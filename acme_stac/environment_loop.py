"""Runs an actor in a batch of environments and counts episodes."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import dm_env
import numpy as np

from acme_stac.environments import BatchedEnvironment

# Maximum actions per evaluation episode. The suites' own limits are lower:
# 108,000 frames (27,000 actions) on Atari and 1,000 actions in control.
MAX_EPISODE_STEPS = 100_000


class BatchedActor(Protocol):
  """Acts in N environments; `training.Actor` is one."""

  def observe_first(self, timestep: dm_env.TimeStep):
    """Records the first time step of every environment."""

  def start(self, timestep: dm_env.TimeStep):
    """Starts inference on a time step."""

  def finish(self) -> Any:
    """Waits for inference and returns actions, [N, ...]."""

  def observe(self, next_timestep: dm_env.TimeStep):
    """Records the time step that followed the actions of `finish`."""

  def update(self, wait: bool = False):
    """Requests new parameters."""

  def forget(self):
    """Drops experience that has not been stored yet."""


class Episode(NamedTuple):
  """A finished episode.

  Attributes:
    member: index of the environment in its batch.
    episode_return: undiscounted sum of the environment's own rewards.
    length: number of actions.
    truncated: whether a limit, not a terminal state, ended it.
  """

  member: int
  episode_return: float
  length: int
  truncated: bool


class BatchedEnvironmentLoop:
  """Steps N environments with one actor and counts their episodes.

  A step is `infer`, `act`, `receive` and `record`. A caller with several loops
  can interleave these calls: inference and environments run in the background.

  Attributes:
    num_steps: steps of the batch so far (N actions each).
    seconds: seconds spent so far, by part: "environment", "inference",
      "writing" (adding to the queue, including the wait for room).
  """

  def __init__(
    self,
    environment: BatchedEnvironment,
    actor: BatchedActor,
    update: bool = True,
  ):
    """Makes a loop.

    Args:
      environment: N environments.
      actor: acts in them.
      update: whether to call the actor's `update` before every step.
    """
    self._update = update
    self._environment = environment
    self._actor = actor
    self._timestep: dm_env.TimeStep | None = None
    self._returns = np.zeros(environment.num_environments)
    self._lengths = np.zeros(environment.num_environments, np.int64)
    self.num_steps = 0
    self.seconds = {"environment": 0.0, "inference": 0.0, "writing": 0.0}

  def replace_environment(self, environment: BatchedEnvironment):
    """Continues with other environments; drops unfinished episodes."""
    self._environment = environment
    self._timestep = None
    self._actor.forget()

  def reset(self):
    """Resets every environment; drops unfinished episodes."""
    self._timestep = self._environment.reset()
    self._returns[:] = 0.0
    self._lengths[:] = 0
    self._actor.observe_first(self._timestep)

  def unfinished(self, min_length: int) -> list[Episode]:
    """Returns running episodes of at least `min_length` actions, truncated."""
    return [
      Episode(
        int(member), float(self._returns[member]), int(self._lengths[member]),
        truncated=True,
      )
      for member in np.flatnonzero(self._lengths >= min_length)
    ]

  @contextlib.contextmanager
  def _timed(self, part: str):
    started = time.perf_counter()
    yield
    self.seconds[part] += time.perf_counter() - started

  def step(self, wait_for_variables: bool = False) -> list[Episode]:
    """Acts once in every environment.

    Args:
      wait_for_variables: wait for parameters whenever a fetch is due, which
        makes a run of one process repeatable.

    Returns:
      The episodes that ended with this step.
    """
    self.infer(wait_for_variables)
    self.act()
    self.receive()
    return self.record()

  def infer(self, wait_for_variables: bool = False):
    """Starts inference on the newest time step."""
    if self._timestep is None:
      self.reset()
      assert self._timestep is not None
    with self._timed("inference"):
      if self._update:
        self._actor.update(wait=wait_for_variables)
      self._actor.start(self._timestep)

  def act(self):
    """Waits for inference and sends its actions to the environments."""
    with self._timed("inference"):
      actions = self._actor.finish()
    with self._timed("environment"):
      self._environment.send(actions)

  def receive(self):
    """Waits for the environments' next time step."""
    with self._timed("environment"):
      self._timestep = self._environment.receive()

  def record(self) -> list[Episode]:
    """Passes the time step to the actor; returns the episodes that ended."""
    timestep = self._timestep
    assert timestep is not None, "receive comes before record"
    with self._timed("writing"):
      self._actor.observe(timestep)
    self.num_steps += 1
    # The reward of a FIRST step belongs to no transition.
    transition = timestep.step_type != dm_env.StepType.FIRST
    self._returns += np.where(transition, timestep.reward, 0.0)
    self._lengths += transition
    episodes = []
    for member in np.flatnonzero(timestep.step_type == dm_env.StepType.LAST):
      episodes.append(
        Episode(
          int(member),
          float(self._returns[member]),
          int(self._lengths[member]),
          bool(timestep.discount[member] > 0.0),
        )
      )
      self._returns[member] = 0.0
      self._lengths[member] = 0
    return episodes


class Evaluation(NamedTuple):
  """The episodes of an evaluation.

  Attributes:
    episodes: all episodes, including those cut off.
    num_cut_off: how many were cut off at `max_episode_steps`.
  """

  episodes: list[Episode]
  num_cut_off: int


def evaluate(
  environment: BatchedEnvironment,
  actor: BatchedActor,
  num_episodes: int,
  should_stop: Callable[[], bool] = lambda: False,
  max_episode_steps: int = MAX_EPISODE_STEPS,
  report_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation | None:
  """Runs whole episodes with the actor's current parameters.

  Every environment contributes the same number of episodes, because taking the
  first to end would favour short ones.

  Args:
    environment: N environments.
    actor: acts; its `update` is not called.
    num_episodes: episodes to run, rounded up to a multiple of N.
    should_stop: ends the evaluation early if True.
    max_episode_steps: actions after which an episode is cut off. Its
      environment starts its next episode when this one ends or the batch is
      reset.
    report_progress: called after every step with the number of episodes so far.

  Returns:
    The evaluation, or None if stopped early.
  """
  members = environment.num_environments
  remaining = np.full(members, -(-num_episodes // members))
  # Members whose episode was cut off but is still running.
  beyond = np.zeros(members, bool)
  episodes: list[Episode] = []
  num_cut_off = 0
  loop = BatchedEnvironmentLoop(environment, actor, update=False)
  while remaining.any():
    if not (remaining * ~beyond).any():
      # A batch can only be reset as a whole, so wait until no running episode
      # counts.
      loop.reset()
      beyond[:] = False
    if should_stop():
      return None
    for episode in loop.step():
      if remaining[episode.member] and not beyond[episode.member]:
        remaining[episode.member] -= 1
        episodes.append(episode)
      beyond[episode.member] = False
    for episode in loop.unfinished(max_episode_steps):
      if remaining[episode.member] and not beyond[episode.member]:
        remaining[episode.member] -= 1
        episodes.append(episode)
        num_cut_off += 1
        beyond[episode.member] = True
    report_progress(len(episodes))
  return Evaluation(episodes, num_cut_off)
