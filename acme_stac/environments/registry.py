"""Environments by name, such as "catch" or "control:cartpole/swingup"."""

import importlib
import inspect
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


def _pixels(name: str, num_environments: int, seed: int, **options: Any):
  from acme_stac.environments.control import ControlPixels

  return ControlPixels(name, num_environments, seed, **options)


def _catch(name: str, num_environments: int, seed: int, **options: Any):
  if name:
    raise ValueError(f"catch has no levels, got 'catch:{name}'.")
  return Catch(num_environments, seed, **options)


def _python(name: str, num_environments: int, seed: int, **options: Any):
  module_name, _, attribute = name.partition(":")
  try:
    module = importlib.import_module(module_name)
    factory = getattr(module, attribute)
  except (AttributeError, ImportError, ValueError) as error:
    raise ValueError(
      f"Environment 'python:{name}' cannot be imported: {error}. Write"
      " python:package.module:factory; the package must be installed, or in"
      " a folder of PYTHONPATH."
    ) from error
  return _from_factory(factory, num_environments, seed, **options)


def _from_factory(
  factory: Callable[..., Any], num_environments: int, seed: int, **options: Any
) -> base.BatchedEnvironment:
  """Makes a batch from what makes one dm_env environment, or a batch."""
  if inspect.isclass(factory) and issubclass(factory, base.BatchedEnvironment):
    return factory(num_environments, seed, **options)
  members = [
    factory(seed=seed + member, **options)
    for member in range(num_environments)
  ]
  for member in members:
    if not isinstance(member, dm_env.Environment):
      raise ValueError(
        f"{factory!r} must return a dm_env.Environment, got"
        f" {type(member).__name__}."
      )
  return base.BatchOfEnvironments(members)


_FAMILIES: dict[str, Callable[..., base.BatchedEnvironment]] = {
  "atari": _atari,
  "catch": _catch,
  "control": _control,
  "control_pixels": _pixels,
  "gymnasium": _gymnasium,
  "python": _python,
}


def make_batched(
  environment: str | Callable[..., Any],
  num_environments: int,
  seed: int,
  **options: Any,
) -> base.BatchedEnvironment:
  """Makes a batch of environments that step together.

  Args:
    environment: a name: "catch", "gymnasium:<id>", "atari:<game>",
      "control:<domain>/<task>", "control_pixels:<domain>/<task>", or
      "python:<module>:<factory>" for what can be imported. Or the factory
      itself: what returns a `dm_env.Environment` if called with `seed` and the
      options, or a subclass of `BatchedEnvironment`.
    num_environments: members N of the batch.
    seed: seed of the whole batch; member i of single environments has seed + i.
    **options: what the family or factory takes, for example
      `sticky_action_probability=0.25` for Atari.

  Raises:
    ValueError: for an unknown name or option, with near matches.
  """
  if num_environments < 1:
    raise ValueError(
      f"num_environments must be at least 1, got {num_environments}."
    )
  if not isinstance(environment, str):
    return _from_factory(environment, num_environments, seed, **options)
  family, _, level = environment.partition(":")
  if family not in _FAMILIES:
    raise ValueError(config.unknown("environment", family, _FAMILIES))
  try:
    return _FAMILIES[family](level, num_environments, seed, **options)
  except TypeError as error:
    if "unexpected keyword" in str(error):
      raise ValueError(f"Environment {environment!r}: {error}.") from error
    raise


def make(
  environment: str | Callable[..., Any], seed: int, **options: Any
) -> dm_env.Environment:
  """Makes one environment; arguments are those of `make_batched`."""
  return base.EnvironmentOfBatch(
    make_batched(environment, 1, seed, **options)
  )
