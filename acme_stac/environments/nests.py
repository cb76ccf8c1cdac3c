"""Nests of observations and their specs: dicts, tuples and lists."""

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from dm_env import specs


def plain_nest(nest: Any) -> Any:
  """Returns a nest whose mappings are dicts, so that JAX can look into them.

  Keeps an `OrderedDict`, whose keys JAX does not sort. Other mappings, such as
  `types.MappingProxyType`, become dicts.
  """
  return select(nest, nest)


def select(spec: Any, nest: Any) -> Any:
  """Returns the parts of a nest that a spec names, in the spec's structure.

  Args:
    spec: nest of specs.
    nest: mappings and sequences of any type; may have further parts.

  Raises:
    LookupError, TypeError, ValueError: if parts are missing.
  """
  if isinstance(spec, Mapping):
    ordered = isinstance(spec, collections.OrderedDict)
    make = collections.OrderedDict if ordered else dict
    return make((key, select(part, nest[key])) for key, part in spec.items())
  if isinstance(spec, tuple | list):
    # A named tuple has another constructor.
    make_sequence = getattr(type(spec), "_make", type(spec))
    return make_sequence(map(select, spec, nest))
  return nest


def named_leaves(name: str, nest: Any) -> list[tuple[str, Any]]:
  """Returns the leaves of a nest, each after `name` with its path.

  Raises:
    ValueError: if the keys of a dict cannot be sorted.
  """
  try:
    paths, _ = jax.tree_util.tree_flatten_with_path(plain_nest(nest))
  except ValueError as error:
    raise ValueError(
      f"{name} has a dict whose keys cannot be sorted, such as numbers beside"
      " strings: use strings as the names of all parts."
    ) from error
  return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]


class Part(NamedTuple):
  """A part of an observation that is as its spec says."""

  name: str
  spec: specs.Array
  value: np.ndarray


def observation_parts(
  spec: Any, observation: Any, name: str = "observation"
) -> tuple[list[Part], list[str]]:
  """Compares an observation with its spec.

  Returns:
    The parts that are as their specs say, and a line for each that is not.
  """
  if isinstance(spec, Mapping | tuple | list):
    wanted, given = _children(spec), _children(observation)
    if given is None or wanted.keys() != given.keys():
      return [], [
        f"{name}'s parts must be {[*wanted]}, got {given and [*given]} (of type"
        f" {type(observation).__name__})."
      ]
    parts, problems = [], []
    for key, part in wanted.items():
      more = observation_parts(part, given[key], f"{name}[{key!r}]")
      parts += more[0]
      problems += more[1]
    return parts, problems
  try:
    value = np.asarray(observation)
  except ValueError:  # Lists of different lengths.
    return [], [f"{name} must be one array, got {observation!r}."]
  if value.shape != spec.shape:
    return [], [f"{name} must have shape {spec.shape}, got {value.shape}."]
  # Python's numbers have no precision of their own.
  typed = isinstance(observation, np.ndarray | np.generic | jax.Array)
  if value.dtype != spec.dtype and (
    typed or not np.can_cast(value.dtype, spec.dtype, "same_kind")
  ):
    return [], [f"{name} must be {spec.dtype}, got {value.dtype}."]
  return [Part(name, spec, value)], []


def _children(nest: Any) -> Any:
  """Returns the parts of a nest by name or number; None if it has none."""
  if isinstance(nest, tuple | list):
    return dict(enumerate(nest))
  return nest if isinstance(nest, Mapping) else None
