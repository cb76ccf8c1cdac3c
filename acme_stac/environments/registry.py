"""Environments by name, such as "catch" or "control:cartpole/swingup"."""

import importlib
import inspect
import typing
from collections.abc import Callable
from typing import Any

import dm_env

from acme_stac import config
from acme_stac.environments import base
from acme_stac.environments.catch import Catch

# The imports wait until a name asks for them: each brings a large package.


def _gymnasium() -> Callable[..., base.BatchedEnvironment]:
  from acme_stac.environments.gymnasium import GymnasiumEnvironment

  return GymnasiumEnvironment


def _atari() -> Callable[..., base.BatchedEnvironment]:
  from acme_stac.environments.atari import Atari

  return Atari


def _control() -> Callable[..., base.BatchedEnvironment]:
  from acme_stac.environments.control import Control

  return Control


def _control_pixels() -> Callable[..., base.BatchedEnvironment]:
  from acme_stac.environments.control import ControlPixels

  return ControlPixels


def _real_world() -> Callable[..., base.BatchedEnvironment]:
  from acme_stac.environments.rwrl import RealWorld

  return RealWorld


def _catch() -> Callable[..., base.BatchedEnvironment]:
  def make_catch(
    level: str,
    num_environments: int,
    seed: int,
    rows: int = 10,
    columns: int = 5,
  ) -> Catch:
    if level:
      raise ValueError(f"catch has no levels, got 'catch:{level}'.")
    return Catch(num_environments, seed, rows, columns)

  return make_catch


# Each returns what takes level, number of members, seed, and options by name.
_FAMILIES: dict[str, Callable[[], Callable[..., base.BatchedEnvironment]]] = {
  "atari": _atari,
  "catch": _catch,
  "control": _control,
  "control_pixels": _control_pixels,
  "gymnasium": _gymnasium,
  "rwrl": _real_world,
}
_PYTHON = "python"
_OPTION_TYPES = (bool, int, float, str, tuple)
_NOT_OPTIONS = ("level", "num_environments", "seed")


def _import_factory(name: str) -> Callable[..., Any]:
  """Returns the object of a name <module>:<factory>."""
  module, _, attribute = name.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except (AttributeError, ImportError, ValueError) as error:
    raise ValueError(
      f"Environment '{_PYTHON}:{name}' cannot be imported: {error}. Write"
      f" {_PYTHON}:package.module:factory; the package must be installed, or"
      " in a folder of PYTHONPATH."
    ) from error


def _from_factory(
  factory: Callable[..., Any], num_environments: int, seed: int, **options: Any
) -> base.BatchedEnvironment:
  """Makes a batch from what makes one dm_env environment, or a batch."""
  if isinstance(factory, type) and issubclass(
    factory, base.BatchedEnvironment
  ):
    make_batch: Callable[..., base.BatchedEnvironment] = factory
    return make_batch(num_environments, seed, **options)
  make_one: Callable[..., Any] = factory
  members = [
    make_one(seed=seed + member, **options)
    for member in range(num_environments)
  ]
  for member in members:
    if not isinstance(member, dm_env.Environment):
      raise ValueError(
        f"{factory!r} must return a dm_env.Environment, got"
        f" {type(member).__name__}."
      )
  return base.BatchOfEnvironments(members)


def _resolve(
  environment: str | Callable[..., Any],
) -> tuple[Callable[..., Any], str | None]:
  """Returns what makes environments, and their level; a factory has none."""
  if not isinstance(environment, str):
    return environment, None
  family, _, level = environment.partition(":")
  if family == _PYTHON:
    return _import_factory(level), None
  if family not in _FAMILIES:
    known = [*_FAMILIES, _PYTHON]
    raise ValueError(config.unknown("environment", family, known))
  return _FAMILIES[family](), level


def option_types(environment: str | Callable[..., Any]) -> dict[str, type]:
  """Returns the options that an environment takes, by name, with their types.

  Args:
    environment: as for `make_batched`.

  Raises:
    ValueError: for an unknown name.
  """
  function, _ = _resolve(environment)
  parameters = inspect.signature(function, eval_str=True).parameters
  hints = {
    name: parameter.annotation for name, parameter in parameters.items()
  }
  # A class that takes many has them in a dataclass.
  if hasattr(function, "OPTIONS"):
    hints.update(typing.get_type_hints(function.OPTIONS))
  found = {}
  for name, hint in hints.items():
    option_type = config.plain_type(hint)
    if name not in _NOT_OPTIONS and option_type in _OPTION_TYPES:
      found[name] = option_type
  return found


def make_batched(
  environment: str | Callable[..., Any],
  num_environments: int,
  seed: int,
  **options: Any,
) -> base.BatchedEnvironment:
  """Makes a batch of environments that step together.

  Args:
    environment: a name: "catch", "gymnasium:<id>", "atari:<game>",
      "control:<domain>/<task>", "control_pixels:<domain>/<task>",
      "rwrl:<domain>/<task>/<level>", or "python:<module>:<factory>" for what
      can be imported. Or the factory itself: what returns a
      `dm_env.Environment` if called with `seed` and the options, or a subclass
      of `BatchedEnvironment`.
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
  function, level = _resolve(environment)
  try:
    if level is None:
      return _from_factory(function, num_environments, seed, **options)
    return function(level, num_environments, seed, **options)
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
