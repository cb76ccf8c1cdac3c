"""Environments by name, such as "catch" or "control:cartpole/swingup"."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_env
import numpy as np

from acme_stac import checks
from acme_stac.environments import base, batches, errors
from acme_stac.environments.catch import Catch
from acme_stac.environments.check import check_specs


class _Family(NamedTuple):
  """A family of environments; its module needs a large package.

  Attributes:
    form: how its names are written after the family's own.
    module: in this package, imported when a name asks for it.
    maker: called there with level, number of members, seed, and options.
    options: dataclass there with the options that `maker` takes as keywords.
  """

  form: str
  module: str
  maker: str
  options: str | None = None


class Parameters(NamedTuple):
  """The options that a function takes.

  Attributes:
    options: types of the options that it declares, by name.
    takes_any: whether it takes further options.
  """

  options: dict[str, Any]
  takes_any: bool


_FAMILIES = {
  "atari": _Family("GAME", "atari", "Atari"),
  "control": _Family("DOMAIN/TASK", "control", "Control"),
  "control_pixels": _Family("DOMAIN/TASK", "control", "ControlPixels"),
  "gymnasium": _Family("ID", "gymnasium", "make"),
  "rwrl": _Family("DOMAIN/TASK/LEVEL", "rwrl", "RealWorld", "Challenges"),
}
# Families of environments written in JAX, each with a module of its name in
# acme_stac.on_device, which is not imported from here -> form of their names.
ON_DEVICE: Mapping[str, str] = {"gymnax": "ID", "playground": "TASK"}
_CATCH, _GYMNASIUM, _PYTHON = "catch", "gymnasium", "python"
# How names are written.
NAME_FORMS = tuple(sorted([
  _CATCH,
  f"{_PYTHON}:MODULE:FACTORY",
  *(f"{name}:{family.form}" for name, family in _FAMILIES.items()),
  *(f"{name}:{form}" for name, form in ON_DEVICE.items()),
]))
_OPTION_TYPES = (bool, int, float, str, tuple)
_NOT_OPTIONS = ("level", "num_environments", "seed")


def imports_code(environment: str, options: Any = None) -> bool:
  """Returns whether a name or its options choose code to import.

  True for python:<module>:<factory> and gymnasium:<module>:<id>, which import
  the module, whatever it is, and for an option of Gymnasium with a colon, as
  wrappers in other libraries take such ids too. Ask before you make an
  environment of such a name from somebody else's file.

  Args:
    environment: a name for `make_batched`.
    options: its options, by name.
  """
  family, _, level = environment.partition(":")
  if family == _PYTHON:
    return True
  return family == _GYMNASIUM and (":" in level or _has_colon(options))


def _has_colon(value: Any) -> bool:
  """Returns whether a string in a nest of dicts and lists has a colon."""
  if isinstance(value, str):
    return ":" in value
  if isinstance(value, dict):
    return any(map(_has_colon, value.values()))
  return isinstance(value, list | tuple) and any(map(_has_colon, value))


def import_factory(name: str, what: str, takes: str) -> Callable[..., Any]:
  """Imports what a user names as <module>:<factory>.

  Args:
    name: of something to import and call.
    what: it makes, for messages.
    takes: what it is called with, for messages.

  Raises:
    ValueError: if it cannot be imported or called.
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


def _on_device_batches() -> Any:
  """Returns the module that makes batches of environments written in JAX.

  It stands above this package, which must not import it unless asked to.
  """
  return importlib.import_module("acme_stac.on_device.batches")


def _from_factory(
  factory: Callable[..., Any], num_environments: int, seed: int, **options: Any
) -> base.BatchedEnvironment:
  """Makes a batch of what a user's function or class makes."""
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
  if issubclass(made_type(factory), base.HasSpecs):
    on_device = _on_device_batches()
    if on_device.registry.is_factory(factory):
      return on_device.make_from_factory(
        factory, num_environments, seed, **options
      )
  make_one: Callable[..., Any] = factory
  members = []
  for number in range(num_environments):
    try:
      members.append(make_one(seed=seed + number, **options))
    except Exception as error:  # A user's factory may raise anything.
      raise ValueError(
        f"{factory!r} with seed={seed + number} and options {options} raised"
        f" {errors.describe_error(error)}."
      ) from error
    if not isinstance(members[-1], dm_env.Environment):
      raise ValueError(
        f"{factory!r} must return a dm_env.Environment, got"
        f" {type(members[-1]).__name__}. For an environment of Gymnasium, let"
        " the module call gymnasium.register(id='Name-v0', entry_point=...) and"
        " write gymnasium:<module>:Name-v0. For a BatchedEnvironment, give its"
        " class."
      )
  check_specs(members[0])
  return batches.BatchOfEnvironments(members)


class _Maker(NamedTuple):
  """Makes environments of one name.

  Attributes:
    make: takes number of members, seed, and options by name.
    parameters: the options that it takes.
  """

  make: Callable[..., base.BatchedEnvironment]
  parameters: Parameters


def _resolve(environment: str | Callable[..., Any]) -> _Maker:
  """Returns the maker of a name or factory.

  Raises:
    ValueError: for an unknown name, with near matches, and for a factory that
      cannot be imported.
  """
  if not isinstance(environment, str):
    factory = environment
  else:
    name, _, level = environment.partition(":")
    if name in _FAMILIES:
      return _family_maker(_FAMILIES[name], level)
    if name in ON_DEVICE:
      on_device = _on_device_batches()
      return _Maker(
        functools.partial(on_device.make, environment),
        on_device.registry.parameters(environment),
      )
    if environment == _CATCH:
      factory = Catch
    elif name == _CATCH:
      raise ValueError(f"catch has no levels, got {environment!r}.")
    elif name == _PYTHON:
      factory = import_factory(level, "Environment", "a seed")
    else:
      known = [*_FAMILIES, *ON_DEVICE, _CATCH, _PYTHON]
      raise ValueError(checks.unknown("environment", name, known))
  return _Maker(
    functools.partial(_from_factory, factory), parameters(factory)
  )


def _family_maker(family: _Family, level: str) -> _Maker:
  module = importlib.import_module(f"acme_stac.environments.{family.module}")
  maker = getattr(module, family.maker)
  options, takes_any = parameters(maker)
  if family.options:
    options |= parameters(getattr(module, family.options)).options
    takes_any = False
  return _Maker(
    functools.partial(maker, level), Parameters(options, takes_any)
  )


def parameters(function: Callable[..., Any]) -> Parameters:
  """Returns the options of a factory of environments."""
  declared = _signature(function).parameters
  named = {
    name: parameter
    for name, parameter in declared.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
  }
  options = {
    name: checks.plain_type(parameter.annotation)
    for name, parameter in named.items()
    if name not in _NOT_OPTIONS
  }
  return Parameters(options, len(named) < len(declared))


def made_type(factory: Callable[..., Any]) -> type:
  """Returns the type of what a factory makes, or `object`.

  It is a class itself, or the return annotation of another callable.
  """
  if isinstance(factory, type):
    return factory
  made = _signature(factory).return_annotation
  return made if isinstance(made, type) else object


def _signature(function: Callable[..., Any]) -> inspect.Signature:
  try:
    return inspect.signature(function, eval_str=True)
  except (NameError, AttributeError):
    # Annotations as strings may name what only a type checker imports.
    return inspect.signature(function)


def option_types(environment: str | Callable[..., Any]) -> dict[str, type]:
  """Returns the options that an environment takes, by name, with their types.

  Args:
    environment: as for `make_batched`.

  Raises:
    ValueError: for an unknown name.
  """
  return {
    name: option_type
    for name, option_type in _resolve(environment).parameters.options.items()
    if option_type in _OPTION_TYPES
  }


def check_options(
  environment: str | Callable[..., Any], options: dict[str, Any]
) -> dict[str, Any]:
  """Returns options of an environment as Python's own types.

  Args:
    environment: as for `make_batched`.
    options: by name.

  Raises:
    ValueError: for an unknown environment or option, with near matches, and for
      an option whose type is not the one that the family or factory declares.
  """
  return checked_options(
    environment, options, _resolve(environment).parameters
  )


def checked_options(
  environment: Any, options: dict[str, Any], takes: Parameters
) -> dict[str, Any]:
  """Returns options as Python's own types; raises as `check_options`.

  Args:
    environment: for messages.
    options: by name.
    takes: the options that the environment takes.
  """
  checked = {}
  for name, value in options.items():
    if name not in takes.options and not takes.takes_any:
      kind = f"option of environment {environment!r}"
      raise ValueError(checks.unknown(kind, name, takes.options))
    option_type = takes.options.get(name)
    if isinstance(value, np.generic):
      value = value.item()
    if option_type is float and type(value) is int:
      value = float(value)
    if option_type is tuple and isinstance(value, list):
      value = tuple(value)
    if option_type in _OPTION_TYPES and value is not None and (
      type(value) is not option_type
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
    environment: a name in one of `NAME_FORMS`, such as "atari:pong" or
      "python:<module>:<factory>". Or a factory: it returns a
      `dm_env.Environment` when called with `seed` and the options, or is a
      subclass of `BatchedEnvironment`.
    num_environments: members N of the batch.
    seed: from 0 to 2³¹ − 1; member i has seed + i, so that batches whose seeds
      are closer than N have members in common.
    **options: of the family or factory, for example
      `sticky_action_probability=0.25` for Atari.

  Raises:
    ValueError: for an unknown name or option, with near matches, and for values
      out of their range.
  """
  if isinstance(seed, np.integer):
    seed = seed.item()
  checks.check_integer("num_environments", num_environments, minimum=1)
  checks.check_integer("seed", seed, minimum=0)
  if seed + num_environments > 2**31:
    raise ValueError(f"seed must be at most 2**31 - 1, got {seed}.")
  maker = _resolve(environment)
  checked = checked_options(environment, options, maker.parameters)
  return maker.make(num_environments, seed, **checked)


def make(
  environment: str | Callable[..., Any], seed: int = 0, **options: Any
) -> dm_env.Environment:
  """Makes one environment; arguments are those of `make_batched`."""
  return batches.EnvironmentOfBatch(
    make_batched(environment, 1, seed, **options)
  )
