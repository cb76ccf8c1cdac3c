"""Bridges between single dm_env environments and batches of them."""

from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import numpy as np

from acme_stac.environments import base, errors, nests, precision, wrappers
from acme_stac.environments.spec import environment_spec


class BatchOfEnvironments(base.BatchedEnvironment):
  """Steps single dm_env environments one after the other.

  Resets a member in the step after the end of its episode, as Acme's
  environment loop does, whether or not the member's own `step` would.
  """

  def __init__(self, environments: Sequence[dm_env.Environment]):
    """Takes ownership of `environments`, which must have equal specs.

    Raises:
      ValueError: if there are none, or their specs differ.
    """
    if not environments:
      raise ValueError("A batch needs at least one environment.")
    if len(set(map(id, environments))) < len(environments):
      raise ValueError("A batch needs a separate environment per member.")
    first, *others = environments
    for other in others:
      if environment_spec(other) != environment_spec(first):
        raise ValueError(
          "Environments of one batch must have equal specs, got"
          f" {environment_spec(first)} and {environment_spec(other)}."
        )
    self.members = list(environments)
    self.num_environments = len(environments)
    self._ended = [True] * len(environments)
    self._observation_spec = nests.plain_nest(first.observation_spec())
    # Every step overwrites it.
    self._observation = jax.tree_util.tree_map(
      lambda spec: np.empty((len(environments), *spec.shape), spec.dtype),
      self._observation_spec,
    )

  def _stack(self, steps: Sequence[dm_env.TimeStep]) -> dm_env.TimeStep:
    spec = self._observation_spec
    try:
      jax.tree_util.tree_map(
        lambda out, *leaves: np.stack(leaves, out=out),
        self._observation,
        *[nests.select(spec, step.observation) for step in steps],
      )
    except (LookupError, TypeError, ValueError) as error:
      for step in steps:
        _, problems = nests.observation_parts(spec, step.observation)
        if problems:
          raise ValueError(" ".join(problems)) from error
      raise

    def column(name: str, default: float) -> np.ndarray:
      values = [getattr(step, name) for step in steps]
      values = [default if value is None else value for value in values]
      return precision.cast(name, values, np.float32)

    step_type = np.array([step.step_type for step in steps], np.int32)
    self._ended = (step_type == int(dm_env.StepType.LAST)).tolist()
    return dm_env.TimeStep(
      step_type,
      column("reward", 0.0),
      column("discount", 1.0),
      self._observation,
    )

  def reset(self) -> dm_env.TimeStep:
    return self._stack([member.reset() for member in self.members])

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    return self._stack([
      member.reset() if ended else member.step(action)
      for member, action, ended in zip(
        self.members, actions, self._ended, strict=True
      )
    ])

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self.members[0].action_spec()

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    if not callable(getattr(member, "render", None)):
      raise NotImplementedError(base.NOT_DRAWN.format(type(member).__name__))
    return np.asarray(member.render())

  def close(self):
    for member in self.members:
      errors.close(member)


class EnvironmentOfBatch(wrappers.Wrapper):
  """The only member of a batched environment as a dm_env environment."""

  def __init__(self, batch: base.BatchedEnvironment):
    if batch.num_environments != 1:
      raise ValueError(f"Need a batch of one, got {batch.num_environments}.")
    super().__init__(batch)
    self.batch = batch
    self._needs_reset = True

  def _first(self, observation: Any) -> dm_env.TimeStep:
    self._needs_reset = False
    return dm_env.restart(observation)

  def reset(self) -> dm_env.TimeStep:
    return self._first(_member(self.batch.reset().observation))

  def step(self, action: Any) -> dm_env.TimeStep:
    if self._needs_reset:
      return self.reset()
    step = self.batch.step(np.asarray(action)[None])
    observation = _member(step.observation)
    if step.step_type[0] == dm_env.StepType.FIRST:
      return self._first(observation)
    return dm_env.TimeStep(
      dm_env.StepType(int(step.step_type[0])),
      float(step.reward[0]),
      float(step.discount[0]),
      observation,
    )

  def render(self) -> np.ndarray:
    return self.batch.render()


def _member(observation: Any) -> Any:
  return jax.tree_util.tree_map(lambda x: np.array(x[0]), observation)
