"""Nests of observations and of their specs: dicts, tuples and lists."""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from dm_env import specs


def plain_nest(nest: Any) -> Any:
  """Returns a nest whose mappings are dicts, which JAX can look into.

  An `OrderedDict` keeps its type, as JAX does not sort its keys. Other
  mappings, such as `types.MappingProxyType`, become dicts.
  """
  if isinstance(nest, Mapping):
    ordered = isinstance(nest, collections.OrderedDict)
    make = collections.OrderedDict if ordered else dict
    return make((key, plain_nest(part)) for key, part in nest.items())
  if isinstance(nest, tuple | list):
    return _sequence(nest, [plain_nest(part) for part in nest])
  return nest


def _sequence(like: Any, parts: list[Any]) -> Any:
  """Returns parts as a sequence of another's type, also a named tuple's."""
  return getattr(type(like), "_make", type(like))(parts)


def select(spec: Any, nest: Any) -> Any:
  """Returns the parts of a nest that a spec names, in the spec's structure.

  Args:
    spec: of `plain_nest`.
    nest: mappings and sequences of any type; may have further parts.

  Raises:
    LookupError, TypeError, ValueError: if parts are missing.
  """
  if isinstance(spec, Mapping):
    ordered = isinstance(spec, collections.OrderedDict)
    make = collections.OrderedDict if ordered else dict
    return make((key, select(part, nest[key])) for key, part in spec.items())
  if isinstance(spec, tuple | list):
    return _sequence(spec, list(map(select, spec, nest)))
  return nest


def named_leaves(name: str, nest: Any) -> list[tuple[str, Any]]:
  """Returns the leaves of a nest, each with `name` and the path to it.

  Raises:
    ValueError: if the keys of a dict cannot be sorted.
  """
  try:
    paths, _ = jax.tree_util.tree_flatten_with_path(plain_nest(nest))
  except ValueError as error:
    raise ValueError(
      f"{name} has a dict whose keys cannot be sorted, such as numbers beside"
      " texts: give all parts texts as names."
    ) from error
  return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]


def observation_parts(
  spec: Any, observation: Any, name: str = "observation"
) -> tuple[list[tuple[str, specs.Array, np.ndarray]], list[str]]:
  """Compares an observation with its spec.

  Returns:
    The name, the spec and the value of every part that is as its spec says; and
    a line for each that is not.
  """
  if isinstance(spec, Mapping | tuple | list):
    both: Any = _children(spec), _children(observation)
    if both[1] is None or both[0].keys() != both[1].keys():
      got = both[1] if both[1] is None else [*both[1]]
      return [], [
        f"{name}'s parts must be {[*both[0]]}, got {got} (of type"
        f" {type(observation).__name__})."
      ]
    parts, problems = [], []
    for key, part in both[0].items():
      more = observation_parts(part, both[1][key], f"{name}[{key!r}]")
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
  return [(name, spec, value)], []


def _children(nest: Any) -> Mapping[Any, Any] | None:
  """Returns the parts of a nest by name or number; None if it has none."""
  if isinstance(nest, Mapping):
    return nest
  if isinstance(nest, tuple | list):
    return dict(enumerate(nest))
  return None
