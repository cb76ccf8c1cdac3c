"""Environments written in JAX as batches that the host steps."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from acme_stac.environments import base, precision
from acme_stac.on_device import registry
from acme_stac.on_device.environment import Environment

Array = jax.Array
# Environments whose compiled functions are kept.
_MAX_KEPT = 8


class Members(NamedTuple):
  """What a batch keeps; a leading axis [N] on each.

  Attributes:
    state: of the environment.
    ended: bool, whether the newest step was LAST.
    key: for the next step.
  """

  state: Any
  ended: Array
  key: Array


class Functions(NamedTuple):
  """Compiled functions of batches of an environment."""

  reset: Callable[[Array], tuple[Members, dm_env.TimeStep]]
  step: Callable[[Members, np.ndarray], tuple[Members, dm_env.TimeStep]]


def make(
  name: str, num_environments: int, seed: int, **options: Any
) -> base.BatchedEnvironment:
  """Makes a batch; those of equal name and options are compiled once.

  Args:
    name: for `registry.make`.
    num_environments: members of the batch.
    seed: member i draws from the key of seed + i.
    **options: for `registry.make`.

  Raises:
    ValueError: as `registry.make`.
    ImportError: as `registry.make`.
  """
  hashable = tuple(sorted((k, _hashable(v)) for k, v in options.items()))
  return Batch(*_make_functions(name, hashable), num_environments, seed)


def make_from_factory(
  factory: Callable[..., Environment],
  num_environments: int,
  seed: int,
  **options: Any,
) -> base.BatchedEnvironment:
  """Makes a batch of what a user's class or function makes; see `make`."""
  environment = registry.make_from_factory(factory, **options)
  functions = compile_functions(environment)
  return Batch(environment, functions, num_environments, seed)


def _hashable(option: Any) -> Any:
  return tuple(map(_hashable, option)) if isinstance(option, list) else option


@functools.lru_cache(_MAX_KEPT)
def _make_functions(
  name: str, options: tuple[tuple[str, Any], ...]
) -> tuple[Environment, Functions]:
  environment = registry.make(name, **dict(options))
  return environment, compile_functions(environment)


def compile_functions(environment: Environment) -> Functions:
  """Returns functions that are traced and compiled when first called."""

  def reset(keys: Array) -> tuple[Members, dm_env.TimeStep]:
    pairs = jax.vmap(jax.random.split)(keys)
    state, timestep = jax.vmap(environment.reset)(pairs[:, 0])
    return Members(state, _ended(timestep), pairs[:, 1]), timestep

  def step(
    members: Members, actions: Array
  ) -> tuple[Members, dm_env.TimeStep]:
    pairs = jax.vmap(jax.random.split)(members.key)
    stepped = jax.vmap(environment.step)(members.state, actions, pairs[:, 0])

    def begin_episodes(stepped: Any) -> Any:
      fresh = jax.vmap(environment.reset)(pairs[:, 0])
      return jax.tree_util.tree_map(
        functools.partial(jax.vmap(jax.lax.select), members.ended),
        fresh,
        stepped,
      )

    # Most steps begin no episode, and a start can take longer than a step.
    state, timestep = jax.lax.cond(
      members.ended.any(), begin_episodes, lambda stepped: stepped, stepped
    )
    return Members(state, _ended(timestep), pairs[:, 1]), timestep

  return Functions(jax.jit(reset), jax.jit(step))


def _ended(timestep: dm_env.TimeStep) -> Array:
  return timestep.step_type == int(dm_env.StepType.LAST)


class Batch(base.BatchedEnvironment):
  """Members of an environment in JAX, which step together on the CPU."""

  def __init__(
    self,
    environment: Environment,
    functions: Functions,
    num_environments: int,
    seed: int,
  ):
    self.environment = environment
    self.num_environments = num_environments
    self.action_repeat = environment.action_repeat
    self._functions = functions
    self._action_spec = environment.action_spec()
    cpu = jax.local_devices(backend="cpu")[0]
    with jax.default_device(cpu):
      keys = [
        jax.random.PRNGKey(seed + member) for member in range(num_environments)
      ]
      # Committed to the CPU, so that the functions run there.
      self._keys = jax.device_put(jnp.stack(keys), cpu)
    self._members: Members | None = None

  def reset(self) -> dm_env.TimeStep:
    keys = self._keys if self._members is None else self._members.key
    self._members, timestep = self._functions.reset(keys)
    return jax.device_get(timestep)

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    if self._members is None:
      return self.reset()
    if isinstance(self._action_spec, specs.DiscreteArray):
      base.check_choices(
        actions, self._action_spec.num_values, self.num_environments
      )
    self._members, timestep = self._functions.step(
      self._members, np.asarray(actions, self._action_spec.dtype)
    )
    return jax.device_get(timestep)

  def observation_spec(self) -> Any:
    return precision.narrow_spec(self.environment.observation_spec())

  def action_spec(self) -> Any:
    return self._action_spec

  def reward_spec(self) -> specs.Array:
    return self.environment.reward_spec()

  def discount_spec(self) -> specs.BoundedArray:
    return self.environment.discount_spec()

  def render(self) -> np.ndarray:
    assert self._members is not None, "reset comes before render"
    return self.environment.render(
      jax.tree_util.tree_map(lambda x: x[0], self._members.state)
    )
