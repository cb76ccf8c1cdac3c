"""Reports an environment's errors, wrong data and hanging, with the actions.

Environments come from anywhere. Their failures are reported in their own terms,
with the actions that led there, apart from all other failures of an actor.
"""

import collections
import threading
from collections.abc import Callable
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac.environments import base, errors, nests, precision
from acme_stac.environments.errors import EnvironmentFailedError

_KEPT_ACTIONS = 10
# Plain numbers: NumPy takes microseconds to compare with members of an enum.
_FIRST, _LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)


class GuardedEnvironment(base.BatchedEnvironment):
  """A batched environment whose failures are `EnvironmentFailedError`s.

  Compares the shapes and types of every time step with the specs, and the order
  of step types with dm_env's: FIRST comes after LAST and nowhere else. Converts
  numbers of 64 bits to the 32 bits that networks compute in; a number that does
  not fit is a failure. Numbers that are not finite are found where trajectories
  are written: a look at every step would take longer than many a step.
  """

  def __init__(
    self,
    environment: base.BatchedEnvironment,
    timeout_seconds: float | None = None,
    on_timeout: Callable[[str], Any] = print,
  ):
    """Takes ownership of `environment`.

    Args:
      environment: to guard.
      timeout_seconds: how long a reset or a step may take; None for no limit.
      on_timeout: called once, in another thread, with a description of the call
        that takes longer.
    """
    self._environment = environment
    self.num_environments = environment.num_environments
    self.action_repeat = environment.action_repeat
    batch = environment.num_environments
    spec = nests.plain_nest(environment.observation_spec())
    self._batched_spec = jax.tree_util.tree_map(
      lambda leaf: specs.Array((batch, *leaf.shape), leaf.dtype), spec
    )
    self._leaves = jax.tree_util.tree_leaves(self._batched_spec)
    self._structure: Any = jax.tree_util.tree_structure(self._batched_spec)
    self._single = isinstance(spec, specs.Array)
    self._observation_spec = precision.narrow_spec(spec)
    self._is_wide = any(map(precision.is_wide, self._leaves))
    # Members whose next time step begins an episode.
    self._begins = np.ones(batch, bool)
    self._actions: collections.deque[Any] = collections.deque(
      maxlen=_KEPT_ACTIONS
    )
    self._calls = 0
    self._busy = False
    self._closed = threading.Event()
    if timeout_seconds is not None:
      threading.Thread(
        target=self._watch,
        args=(timeout_seconds, on_timeout),
        daemon=True,
        name="environment_watch",
      ).start()

  def _watch(self, timeout_seconds: float, on_timeout: Callable[[str], Any]):
    # Counts its own looks instead of reading a clock, so that time in which the
    # whole process is stopped does not count.
    look_seconds = min(1.0, timeout_seconds / 5)
    call, looks = -1, 0
    while not self._closed.wait(look_seconds):
      if not self._busy or call != self._calls:
        call, looks = self._calls, 0
        continue
      looks += 1
      if looks * look_seconds >= timeout_seconds:
        on_timeout(
          f"The environment has not returned for {timeout_seconds:g} s."
          f" {self.last_actions()}"
        )
        return

  def last_actions(self) -> str:
    """Returns the newest actions of all members, as text."""
    if not self._actions:
      return "It has not been given any action yet."
    lines = [f"  {np.asarray(action).tolist()}" for action in self._actions]
    return "Its last actions, the newest last:\n" + "\n".join(lines)

  def failure(self, problem: str) -> EnvironmentFailedError:
    """Returns the error for a problem, with the actions that led there."""
    return EnvironmentFailedError(f"{problem}\n{self.last_actions()}")

  def _call(self, function: Callable[..., Any], *args: Any) -> Any:
    self._calls += 1
    self._busy = True
    try:
      return function(*args)
    # An environment may try to end the program. The user's Ctrl-C arrives as a
    # request to stop, not as an exception.
    except (Exception, SystemExit, KeyboardInterrupt) as error:
      raise self.failure(
        f"The environment raised {errors.describe_error(error)}."
      ) from error
    finally:
      self._busy = False

  def _checked(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    if problem := self._problem(timestep):
      raise self.failure(f"The environment's {problem}")
    try:
      if timestep.reward.dtype != np.float32:
        timestep = timestep._replace(
          reward=precision.cast("reward", timestep.reward, np.float32)
        )
      if self._is_wide:
        timestep = timestep._replace(
          observation=precision.narrow(timestep.observation)
        )
    except ValueError as error:
      raise self.failure(f"The environment's {error}") from error
    return timestep

  def _problem(self, timestep: dm_env.TimeStep) -> str | None:
    """Returns what is wrong with a time step, or None."""
    if not isinstance(timestep, dm_env.TimeStep):
      return (
        "time step must be a dm_env.TimeStep, got a"
        f" {type(timestep).__name__}."
      )
    if self._single:
      leaves, structure = [timestep.observation], self._structure
    else:
      leaves, structure = jax.tree_util.tree_flatten(timestep.observation)
    if structure != self._structure or not all(
      isinstance(leaf, np.ndarray | jax.Array)
      and leaf.shape == spec.shape
      and leaf.dtype == spec.dtype
      for leaf, spec in zip(leaves, self._leaves, strict=True)
    ):
      _, problems = nests.observation_parts(
        self._batched_spec, timestep.observation
      )
      return " ".join(problems) or (
        f"observation must be made of arrays and have structure"
        f" {self._structure}, got {timestep.observation!r}."
      )
    batch = (self.num_environments,)
    for name in ("step_type", "reward", "discount"):
      value = getattr(timestep, name)
      if not isinstance(value, np.ndarray | jax.Array) or value.shape != batch:
        return (
          f"{name} must be an array of shape {batch}, got a"
          f" {type(value).__name__} of shape {np.shape(value)}."
        )
      if value.dtype.kind not in "biuf":
        return f"{name} must be of numbers, got {value.dtype}."
    step_type = np.asarray(timestep.step_type)
    wrong = (step_type == _FIRST) != self._begins
    if wrong.any():
      member = int(np.flatnonzero(wrong)[0])
      return (
        f"step_type of member {member} is"
        f" {dm_env.StepType(int(step_type[member])).name}, but a reset and the"
        " step after LAST must return FIRST, and no other step."
      )
    self._begins = step_type == _LAST
    return None

  def reset(self) -> dm_env.TimeStep:
    self._begins = np.ones(self.num_environments, bool)
    return self._checked(self._call(self._environment.reset))

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    self.send(actions)
    return self.receive()

  def send(self, actions: np.ndarray):
    self._actions.append(actions)
    self._call(self._environment.send, actions)

  def receive(self) -> dm_env.TimeStep:
    return self._checked(self._call(self._environment.receive))

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self._environment.action_spec()

  def reward_spec(self) -> Any:
    return self._environment.reward_spec()

  def discount_spec(self) -> Any:
    return self._environment.discount_spec()

  def close(self):
    self._closed.set()
    errors.close(self._environment)
