"""Watches over environments: errors, wrong data and hanging, with the actions.

Environments come from anywhere. What one of them does wrong is told in terms of
the environment, with the actions that led there, and apart from everything else
that can go wrong in an actor.
"""

import collections
import threading
from collections.abc import Callable
from typing import Any

import dm_env
import jax
import numpy as np

from acme_stac.environments import base, errors, nests, precision
from acme_stac.environments.errors import EnvironmentFailedError

_KEPT_ACTIONS = 10
# Plain numbers: NumPy takes microseconds to compare with members of an enum.
_FIRST, _LAST = int(dm_env.StepType.FIRST), int(dm_env.StepType.LAST)


class GuardedEnvironment(base.BatchedEnvironment):
  """A batched environment whose failures are `EnvironmentFailedError`s.

  The shapes and types of every time step are compared with the specs, and the
  order of step types with dm_env's: FIRST comes after LAST and nowhere else.
  Numbers that are not finite are found where trajectories are written, as
  looking at every step would cost more than many a step does. Observations of
  64 bits become those of 32 bits that networks compute in; it is a failure if
  a number does not fit.
  """

  def __init__(
    self,
    environment: base.BatchedEnvironment,
    timeout_seconds: float | None = None,
    on_timeout: Callable[[str], Any] = print,
  ):
    """Takes ownership of `environment`.

    Args:
      environment: to watch.
      timeout_seconds: how long a reset or a step may take. None for ever.
      on_timeout: called in another thread, once, with a description of the one
        that takes longer.
    """
    self._environment = environment
    self.num_environments = environment.num_environments
    self.action_repeat = environment.action_repeat
    batch = environment.num_environments
    spec = environment.observation_spec()
    self._expected = [
      (jax.tree_util.keystr(path), (batch, *leaf.shape), leaf.dtype)
      for path, leaf in jax.tree_util.tree_leaves_with_path(spec)
    ]
    self._structure: Any = jax.tree_util.tree_structure(spec)
    self._single = jax.tree_util.treedef_is_leaf(self._structure)
    self._observation_spec = precision.narrow_spec(nests.plain_nest(spec))
    self._is_wide = any(
      map(precision.is_wide, jax.tree_util.tree_leaves(spec))
    )
    # Whether the time step to come begins an episode, for each member.
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
    # It counts its own looks instead of reading a clock, so that the time in
    # which the whole process was stopped does not count.
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
      return "It was not given any action yet."
    lines = [f"  {np.asarray(action).tolist()}" for action in self._actions]
    return "Its last actions, the newest last:\n" + "\n".join(lines)

  def failure(self, problem: str) -> EnvironmentFailedError:
    """Returns the error that says a problem and what led there."""
    return EnvironmentFailedError(f"{problem}\n{self.last_actions()}")

  def _call(self, function: Callable[..., Any], *args: Any) -> Any:
    self._calls += 1
    self._busy = True
    try:
      return function(*args)
    # An environment may try to end the program; the user's Ctrl-C comes as a
    # request to stop and not as an exception.
    except (Exception, SystemExit, KeyboardInterrupt) as error:
      raise self.failure(
        f"The environment raised {errors.describe_error(error)}."
      ) from error
    finally:
      self._busy = False

  def _checked(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    if problem := self._problem(timestep):
      raise self.failure(f"The environment {problem}")
    try:
      if timestep.reward.dtype != np.float32:
        timestep = timestep._replace(
          reward=precision.narrow_numbers("reward", timestep.reward)
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
      return f"gave a {type(timestep).__name__} instead of a dm_env.TimeStep."
    observation = timestep.observation
    if self._single:
      leaves = [observation]
    else:
      leaves, structure = jax.tree_util.tree_flatten(observation)
      if structure != self._structure:
        return (
          f"gave an observation of structure {structure}, but its spec says"
          f" {self._structure}."
        )
    for leaf, (name, shape, dtype) in zip(leaves, self._expected, strict=True):
      if not isinstance(leaf, np.ndarray | jax.Array):
        return (
          f"gave an observation{name} of type {type(leaf).__name__} instead of"
          " an array."
        )
      if leaf.shape != shape or leaf.dtype != dtype:
        return (
          f"gave an observation{name} of shape {leaf.shape} and type"
          f" {leaf.dtype}, but its spec says {shape} and {dtype}."
        )
    batch = (self.num_environments,)
    for name in ("step_type", "reward", "discount"):
      value = getattr(timestep, name)
      if not isinstance(value, np.ndarray | jax.Array) or value.shape != batch:
        return (
          f"gave a {name} of type {type(value).__name__} and shape"
          f" {np.shape(value)} instead of an array of shape {batch}."
        )
      if value.dtype.kind not in "biuf":
        return f"gave a {name} of {value.dtype} instead of numbers."
    step_type = np.asarray(timestep.step_type)
    begins = step_type == _FIRST
    if (begins != self._begins).any():
      return self._order_problem(step_type)
    self._begins = step_type == _LAST
    return None

  def _order_problem(self, step_type: np.ndarray) -> str:
    first = step_type == _FIRST
    member = int(np.flatnonzero(first != self._begins)[0])
    got = dm_env.StepType(int(step_type[member])).name
    if first[member]:
      return (
        f"gave {got} in the middle of an episode (member {member} of the"
        " batch): only a reset or a step after LAST begins one."
      )
    return (
      f"gave {got} where an episode begins (member {member} of the batch): a"
      " reset, and the step after LAST, must return FIRST."
    )

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
