"""Environments by name, such as "catch" or "control:cartpole/swingup"."""

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import numpy as np

from acme_stac import checks
from acme_stac.environments import base, batches, errors
from acme_stac.environments.catch import Catch
from acme_stac.environments.check import check_specs


class _Family(NamedTuple):
  """A family of environments; its module brings a large package.

  Attributes:
    form: how its names are written after the family's own.
    module: of this package, imported when a name asks for it.
    maker: what there takes level, number of members, seed, and options by name.
    options: dataclass there with options that `maker` takes as keywords.
  """

  form: str
  module: str
  maker: str
  options: str | None = None


_FAMILIES = {
  "atari": _Family("GAME", "atari", "Atari"),
  "control": _Family("DOMAIN/TASK", "control", "Control"),
  "control_pixels": _Family("DOMAIN/TASK", "control", "ControlPixels"),
  "gymnasium": _Family("ID", "gymnasium", "make"),
  "rwrl": _Family("DOMAIN/TASK/LEVEL", "rwrl", "RealWorld", "Challenges"),
}
_CATCH, _GYMNASIUM, _PYTHON = "catch", "gymnasium", "python"
# How names are written.
NAME_FORMS = tuple(sorted([
  _CATCH,
  f"{_PYTHON}:MODULE:FACTORY",
  *(f"{name}:{family.form}" for name, family in _FAMILIES.items()),
]))
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
        f" {errors.describe_error(error)}."
      ) from error
  for member in members:
    if not isinstance(member, dm_env.Environment):
      raise ValueError(
        f"{factory!r} must return a dm_env.Environment, got"
        f" {type(member).__name__}.{_advice(member)}"
      )
  check_specs(members[0])
  return batches.BatchOfEnvironments(members)


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


class _Maker(NamedTuple):
  """What makes environments.

  Attributes:
    make: takes number of members, seed, and options by name.
    options: the types of the options that it declares, by name.
    takes_any: whether it takes further options.
  """

  make: Callable[..., base.BatchedEnvironment]
  options: dict[str, Any]
  takes_any: bool

  def check(self, environment: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Returns options as plain numbers; see `check_options`."""
    checked = {}
    for name, value in options.items():
      if name not in self.options and not self.takes_any:
        raise ValueError(
          checks.unknown(
            f"option of environment {environment!r}", name, self.options
          )
        )
      if isinstance(value, np.generic):
        value = value.item()
      kind = self.options.get(name)
      if kind is float and type(value) is int:
        value = float(value)
      if kind is tuple and isinstance(value, list):
        value = tuple(value)
      if kind in _OPTION_TYPES and value is not None and (
        type(value) is not kind
      ):
        raise ValueError(
          f"Option {name} of environment {environment!r} must be of type"
          f" {kind.__name__}, got {value!r}."
        )
      checked[name] = value
    return checked


def _resolve(environment: str | Callable[..., Any]) -> _Maker:
  """Returns what makes environments of a name or factory.

  Raises:
    ValueError: for an unknown name, with near matches, and for a factory that
      cannot be imported.
  """
  if not isinstance(environment, str):
    return _factory_maker(environment)
  name, _, level = environment.partition(":")
  if environment == _CATCH:
    return _factory_maker(Catch)
  if name == _CATCH:
    raise ValueError(f"catch has no levels, got {environment!r}.")
  if name == _PYTHON:
    return _factory_maker(import_factory(level, "Environment", "a seed"))
  if name not in _FAMILIES:
    known = [*_FAMILIES, _CATCH, _PYTHON]
    raise ValueError(checks.unknown("environment", name, known))
  family = _FAMILIES[name]
  module = importlib.import_module(f"acme_stac.environments.{family.module}")
  maker = getattr(module, family.maker)
  options, takes_any = _parameters(maker)
  if family.options:
    options |= _parameters(getattr(module, family.options))[0]
    takes_any = False
  return _Maker(
    lambda *args, **kwargs: maker(level, *args, **kwargs), options, takes_any
  )


def _factory_maker(factory: Callable[..., Any]) -> _Maker:
  def make_batch(*args: Any, **options: Any) -> base.BatchedEnvironment:
    return _from_factory(factory, *args, **options)

  return _Maker(make_batch, *_parameters(factory))


def _parameters(function: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
  """Returns the types of a function's options, and if it takes any other."""
  try:
    signature = inspect.signature(function, eval_str=True)
  except (NameError, AttributeError):
    # Annotations as texts may name what only a type checker imports.
    signature = inspect.signature(function)
  parameters = signature.parameters.items()
  takes_any = any(
    parameter.kind is inspect.Parameter.VAR_KEYWORD
    for _, parameter in parameters
  )
  return {
    name: checks.plain_type(parameter.annotation)
    for name, parameter in parameters
    if name not in _NOT_OPTIONS
    and parameter.kind is not inspect.Parameter.VAR_KEYWORD
  }, takes_any


def option_types(environment: str | Callable[..., Any]) -> dict[str, type]:
  """Returns the options that an environment takes, by name, with their types.

  Args:
    environment: as for `make_batched`.

  Raises:
    ValueError: for an unknown name.
  """
  return {
    name: option_type
    for name, option_type in _resolve(environment).options.items()
    if option_type in _OPTION_TYPES
  }


def check_options(
  environment: str | Callable[..., Any], options: dict[str, Any]
) -> dict[str, Any]:
  """Returns options of an environment as plain numbers.

  Args:
    environment: as for `make_batched`.
    options: by name.

  Raises:
    ValueError: for an unknown environment or option, with near matches, and for
      an option of another type than the family or factory declares.
  """
  return _resolve(environment).check(environment, options)


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
  maker = _resolve(environment)
  options = maker.check(environment, options)
  return maker.make(num_environments, seed, **options)


def make(
  environment: str | Callable[..., Any], seed: int = 0, **options: Any
) -> dm_env.Environment:
  """Makes one environment; arguments are those of `make_batched`."""
  return batches.EnvironmentOfBatch(
    make_batched(environment, 1, seed, **options)
  )
