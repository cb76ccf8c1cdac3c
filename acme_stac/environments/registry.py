"""Environments by name, such as "catch" or "control:cartpole/swingup"."""

from collections.abc import Callable
from typing import Any

import dm_env

from acme_stac import config
from acme_stac.environments import base
from acme_stac.environments.catch import Catch

# The imports wait until a name asks for them: each brings a large package.


def _gymnasium(name: str, num_environments: int, seed: int, **options: Any):
  from acme_stac.environments.gymnasium import GymnasiumEnvironment

  return GymnasiumEnvironment(name, num_environments, seed, **options)


def _atari(name: str, num_environments: int, seed: int, **options: Any):
  from acme_stac.environments.atari import Atari

  return Atari(name, num_environments, seed, **options)


def _control(name: str, num_environments: int, seed: int, **options: Any):
  from acme_stac.environments.control import Control

  return Control(name, num_environments, seed, **options)


def _real_world(name: str, num_environments: int, seed: int, **options: Any):
  from acme_stac.environments.rwrl import RealWorld

  return RealWorld(name, num_environments, seed, **options)


def _catch(name: str, num_environments: int, seed: int, **options: Any):
  if name:
    raise ValueError(f"catch has no levels, got 'catch:{name}'.")
  return Catch(num_environments, seed, **options)


_FAMILIES: dict[str, Callable[..., base.BatchedEnvironment]] = {
  "atari": _atari,
  "catch": _catch,
  "control": _control,
  "gymnasium": _gymnasium,
  "rwrl": _real_world,
}


def make_batched(
  name: str, num_environments: int, seed: int, **options: Any
) -> base.BatchedEnvironment:
  """Makes a batch of environments that step together.

  Args:
    name: "catch", "gymnasium:<id>", "atari:<game>",
      "control:<domain>/<task>" or "rwrl:<domain>/<task>/<level>".
    num_environments: members N of the batch.
    seed: seed of the whole batch.
    **options: what the family takes, for example
      `sticky_action_probability=0.25` for Atari.

  Raises:
    ValueError: for an unknown name or option, with near matches.
  """
  family, _, level = name.partition(":")
  if family not in _FAMILIES:
    raise ValueError(config.unknown("environment", family, _FAMILIES))
  if num_environments < 1:
    raise ValueError(
      f"num_environments must be at least 1, got {num_environments}."
    )
  try:
    return _FAMILIES[family](level, num_environments, seed, **options)
  except TypeError as error:
    if "unexpected keyword" in str(error):
      raise ValueError(f"Environment {name!r}: {error}.") from error
    raise


def make(name: str, seed: int, **options: Any) -> dm_env.Environment:
  """Makes one environment; arguments are those of `make_batched`."""
  return base.EnvironmentOfBatch(make_batched(name, 1, seed, **options))
