"""Environments by name, such as "catch" or "control:cartpole/swingup"."""

import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np

from acme_stac import checks
from acme_stac.environments import base
from acme_stac.environments.catch import Catch
from acme_stac.environments.check import check_specs

# The imports wait until a name asks for them: each brings a large package.


def _gymnasium() -> Callable[..., base.BatchedEnvironment]:
  from acme_stac.environments import gymnasium

  return gymnasium.make


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
# How the names of each family are written.
NAME_FORMS = (
  "atari:GAME",
  "catch",
  "control:DOMAIN/TASK",
  "control_pixels:DOMAIN/TASK",
  "gymnasium:ID",
  "python:MODULE:FACTORY",
  "rwrl:DOMAIN/TASK/LEVEL",
)
_PYTHON = "python"
_GYMNASIUM = "gymnasium"
_OPTION_TYPES = (bool, int, float, str, tuple)
_NOT_OPTIONS = ("level", "num_environments", "seed")


def imports_code(environment: str, options: Any = None) -> bool:
  """Returns whether a name or its options choose code that is imported.

  Such are python:<module>:<factory> and gymnasium:<module>:<id>, whose module
  is imported whatever it is. An option of Gymnasium with a colon in it may be
  such an id as well, as wrappers of other libraries take one. A name of this
  kind from somebody else's file must not be made without asking.

  Args:
    environment: a name for `make_batched`.
    options: its options, by name.
  """
  family, _, level = environment.partition(":")
  if family == _PYTHON:
    return True
  return family == _GYMNASIUM and (":" in level or _has_colon(options))


def _has_colon(value: Any) -> bool:
  """Returns whether a text in a nest of JSON's kind has a colon."""
  if isinstance(value, str):
    return ":" in value
  if isinstance(value, dict):
    return any(map(_has_colon, value.values()))
  return isinstance(value, list | tuple) and any(map(_has_colon, value))


def import_factory(name: str, what: str, takes: str) -> Callable[..., Any]:
  """Returns what a user's name <module>:<factory> names.

  Args:
    name: of what can be imported and called.
    what: it is said to make, in messages.
    takes: what it is called with, in messages.

  Raises:
    ValueError: if it cannot be imported, or not be called.
  """
  module, _, attribute = name.partition(":")
  try:
    factory = getattr(importlib.import_module(module), attribute)
  except Exception as error:  # A user's module may raise anything.
    raise ValueError(
      f"{what} '{_PYTHON}:{name}' cannot be imported"
      f" ({type(error).__name__}, {error}). Write"
      f" {_PYTHON}:package.module:factory; the package must be installed, or"
      " in a folder of PYTHONPATH."
    ) from error
  if not callable(factory):
    raise ValueError(
      f"'{_PYTHON}:{name}' is {factory!r}, which cannot be called with"
      f" {takes}."
    )
  return factory


def _from_factory(
  factory: Callable[..., Any], num_environments: int, seed: int, **options: Any
) -> base.BatchedEnvironment:
  """Makes a batch from what makes one dm_env environment, or a batch."""
  if isinstance(factory, type) and issubclass(
    factory, base.BatchedEnvironment
  ):
    make_batch: Callable[..., base.BatchedEnvironment] = factory
    batch = make_batch(num_environments, seed, **options)
    if batch.num_environments != num_environments:
      raise ValueError(
        f"{factory!r} must make a batch of num_environments={num_environments}"
        f" members, but its num_environments is {batch.num_environments}."
      )
    return batch
  make_one: Callable[..., Any] = factory
  members = []
  for number in range(num_environments):
    try:
      members.append(make_one(seed=seed + number, **options))
    except Exception as error:  # Whatever a user's factory may raise.
      raise ValueError(
        f"{factory!r} with seed={seed + number} and options {options} raised"
        f" {base.describe_error(error)}."
      ) from error
  for member in members:
    if not isinstance(member, dm_env.Environment):
      raise ValueError(
        f"{factory!r} must return a dm_env.Environment, got"
        f" {type(member).__name__}.{_advice(member)}"
      )
  check_specs(members[0])
  return base.BatchOfEnvironments(members)


def _advice(made: Any) -> str:
  """Returns what to do with what a factory made, if that is known."""
  # Only those that are loaded can have made it.
  for package in ("gymnasium", "gym"):
    module: Any = sys.modules.get(package)
    if module and isinstance(made, module.Env):
      return (
        f" That is an environment of {package}: let the module call"
        " gymnasium.register(id='Name-v0', entry_point=...) and take"
        " gymnasium:<module>:Name-v0 as the environment."
      )
  if isinstance(made, base.BatchedEnvironment):
    return " A BatchedEnvironment is given as its class."
  return ""


def _resolve(
  environment: str | Callable[..., Any],
) -> tuple[Callable[..., Any], str | None]:
  """Returns what makes environments, and their level; a factory has none."""
  if not isinstance(environment, str):
    return environment, None
  family, _, level = environment.partition(":")
  if family == _PYTHON:
    return import_factory(level, "Environment", "a seed"), None
  if family not in _FAMILIES:
    known = [*_FAMILIES, _PYTHON]
    raise ValueError(checks.unknown("environment", family, known))
  return _FAMILIES[family](), level


def option_types(environment: str | Callable[..., Any]) -> dict[str, type]:
  """Returns the options that an environment takes, by name, with their types.

  Args:
    environment: as for `make_batched`.

  Raises:
    ValueError: for an unknown name.
  """
  return {
    name: option_type
    for name, option_type in _options(_resolve(environment)[0]).items()
    if option_type in _OPTION_TYPES
  }


def _options(function: Callable[..., Any]) -> dict[str, Any]:
  """Returns what a family or factory takes by name, with its types."""
  parameters = inspect.signature(function).parameters
  try:
    is_class = isinstance(function, type)
    hints = typing.get_type_hints(
      inspect.getattr_static(function, "__init__") if is_class else function
    )
  except Exception:  # A user's annotations may name what is not there.
    hints = {}
  options = {
    name: checks.plain_type(hints.get(name))
    for name, parameter in parameters.items()
    if name not in _NOT_OPTIONS
    and parameter.kind is not inspect.Parameter.VAR_KEYWORD
  }
  # A class that takes many has them in a dataclass.
  if hasattr(function, "OPTIONS"):
    options.update({
      name: checks.plain_type(hint)
      for name, hint in typing.get_type_hints(function.OPTIONS).items()
    })
  return options


def check_options(
  environment: str | Callable[..., Any], options: dict[str, Any]
) -> dict[str, Any]:
  """Returns options of an environment as plain numbers.

  Args:
    environment: as for `make_batched`.
    options: by name.

  Raises:
    ValueError: for an unknown environment or option, with near matches, and for
      an option of another type than the family or factory says.
  """
  return _check_options(environment, _resolve(environment)[0], options)


def _check_options(
  environment: str | Callable[..., Any],
  function: Callable[..., Any],
  options: dict[str, Any],
) -> dict[str, Any]:
  """Returns options as plain numbers.

  Raises:
    ValueError: for an unknown option, with near matches, and for one of another
      type than the family or factory says.
  """
  known = _options(function)
  takes_any = any(
    parameter.kind is inspect.Parameter.VAR_KEYWORD
    for parameter in inspect.signature(function).parameters.values()
  ) and not hasattr(function, "OPTIONS")
  checked = {}
  for name, value in options.items():
    if name not in known and not takes_any:
      raise ValueError(
        checks.unknown(f"option of environment {environment!r}", name, known)
      )
    if isinstance(value, np.generic):
      value = value.item()
    option_type = known.get(name)
    if option_type is float and type(value) is int:
      value = float(value)
    if (
      option_type in _OPTION_TYPES
      and value is not None
      and type(value) is not option_type
      and not (option_type is tuple and isinstance(value, list))
    ):
      raise ValueError(
        f"Option {name} of environment {environment!r} must be of type"
        f" {option_type.__name__}, got {value!r}."
      )
    checked[name] = value
  return checked


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
    seed: seed of the whole batch, from 0 to 2³¹ − 1; member i has seed + i, so
      that batches whose seeds are closer than N have members in common.
    **options: what the family or factory takes, for example
      `sticky_action_probability=0.25` for Atari.

  Raises:
    ValueError: for an unknown name or option, with near matches, and for values
      that cannot be.
  """
  if isinstance(seed, np.integer):
    seed = seed.item()
  checks.check_integer("num_environments", num_environments, minimum=1)
  checks.check_integer("seed", seed, minimum=0)
  if seed + num_environments > 2**31:
    raise ValueError(f"seed must be at most 2**31 - 1, got {seed}.")
  function, level = _resolve(environment)
  options = _check_options(environment, function, options)
  if level is None:
    return _from_factory(function, num_environments, seed, **options)
  return function(level, num_environments, seed, **options)


def make(
  environment: str | Callable[..., Any], seed: int = 0, **options: Any
) -> dm_env.Environment:
  """Makes one environment; arguments are those of `make_batched`."""
  return base.EnvironmentOfBatch(
    make_batched(environment, 1, seed, **options)
  )
