"""Environments written in JAX by name, such as "gymnax:Breakout-MinAtar"."""

import difflib
import functools
import importlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from acme_stac.environments import errors
from acme_stac.environments import registry as host_registry
from acme_stac.on_device.catch import Catch
from acme_stac.on_device.environment import Environment

_CATCH, _PYTHON = "catch", "python"
# How names are written.
NAME_FORMS = tuple(sorted([
  _CATCH,
  f"{_PYTHON}:MODULE:FACTORY",
  *(f"{name}:{form}" for name, form in host_registry.ON_DEVICE.items()),
]))


class _Maker(NamedTuple):
  """Makes environments of one name; takes the options of `parameters`."""

  make: Callable[..., Environment]
  parameters: host_registry.Parameters


def is_on_device(name: str) -> bool:
  """Returns whether a name is one of an environment written in JAX.

  Imports the module of python:<module>:<factory>, but no library otherwise.

  Args:
    name: of an environment, for example as for `environments.make`.

  Raises:
    ValueError: if that module cannot be imported.
  """
  family, _, level = name.partition(":")
  if family == _PYTHON:
    return is_factory(_import(level))
  return name == _CATCH or family in host_registry.ON_DEVICE


def is_factory(factory: Callable[..., Any]) -> bool:
  """Returns whether a callable makes environments written in JAX.

  Calls nothing: such a factory is a subclass of `Environment`, or its return
  annotation is one.
  """
  return issubclass(host_registry.made_type(factory), Environment)


def parameters(name: str) -> host_registry.Parameters:
  """Returns the options that `make` takes; raises as `make`."""
  return _resolve(name).parameters


def make(name: str, **options: Any) -> Environment:
  """Makes an environment written in JAX.

  Args:
    name: in one of `NAME_FORMS`.
    **options: of the family, or parameters of the factory.

  Raises:
    ValueError: for an unknown name or option, with near matches, for an
      environment that is not written in JAX, and for one that cannot be made.
    ImportError: if the family's library is missing.
  """
  maker = _resolve(name)
  return maker.make(
    **host_registry.checked_options(name, options, maker.parameters)
  )


def make_from_factory(
  factory: Callable[..., Environment], **options: Any
) -> Environment:
  """Makes an environment of a user's.

  Args:
    factory: for which `is_factory` is true.
    **options: its arguments.

  Raises:
    ValueError: if it raises anything, or makes something else.
  """
  try:
    made = factory(**options)
  except Exception as error:  # A user's factory may raise anything.
    raise ValueError(
      f"{factory!r} with options {options} raised"
      f" {errors.describe_error(error)}."
    ) from error
  if not isinstance(made, Environment):
    raise ValueError(
      f"{factory!r} must return an acme_stac.on_device.Environment, as its"
      f" annotation says, got {type(made).__name__}."
    )
  return made


def _resolve(name: str) -> _Maker:
  """Returns the maker of a name; see `make` for what it raises."""
  family, _, level = name.partition(":")
  if family in host_registry.ON_DEVICE:
    module = _module(family)
    return _Maker(
      functools.partial(module.make, level),
      host_registry.Parameters(module.option_types(level), takes_any=False),
    )
  if name == _CATCH:
    factory: Any = Catch
  elif family == _PYTHON:
    factory = _import(level)
  else:
    factory = None
  if factory is None or not is_factory(factory):
    raise ValueError(_not_on_device(name))
  return _Maker(
    functools.partial(make_from_factory, factory),
    host_registry.parameters(factory),
  )


def _module(family: str) -> Any:
  """Imports a family's module, and with it the family's library.

  It has `names()`, `option_types(level)` and `make(level, **options)`.
  """
  return importlib.import_module(f"acme_stac.on_device.{family}")


def _import(name: str) -> Any:
  """Imports what python:<name> stands for."""
  return host_registry.import_factory(name, "Environment", "options")


def _not_on_device(name: str) -> str:
  """Returns the message for a name of no environment written in JAX."""
  if name.startswith(f"{_PYTHON}:"):
    return (
      f"{name!r} makes no acme_stac.on_device.Environment, whose reset and step"
      " are functions that JAX can compile. Name a subclass, or a function with"
      " one as return annotation: def make() -> MyEnvironment."
    )
  problem = f"Environment {name!r} is not written in JAX"
  near = _similar(name)
  mean = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
  return f"{problem}.{mean} Those that are: {', '.join(NAME_FORMS)}."


def _similar(name: str) -> list[str]:
  """Returns names whose level is like that of a name of any family.

  Looks into installed libraries only.
  """
  known: dict[str, str] = {}
  for family in host_registry.ON_DEVICE:
    try:
      levels = _module(family).names()
    except ImportError:
      continue
    for level in levels:
      full = f"{family}:{level}"
      # "Breakout-MinAtar" is like "atari:breakout", too.
      known |= dict.fromkeys(
        [_plain(full), _plain(level), _plain(level.partition("-")[0])], full
      )
  known[_plain(_CATCH)] = _CATCH
  wanted = {_plain(name), _plain(name.partition(":")[2] or name)}
  near = [
    match
    for text in sorted(wanted)
    for match in difflib.get_close_matches(text, known, cutoff=0.7)
  ]
  return list(dict.fromkeys(known[match] for match in near))[:3]


def _plain(text: str) -> str:
  """Returns a name's letters and digits, small."""
  return re.sub(r"[^a-z0-9]", "", text.lower())
