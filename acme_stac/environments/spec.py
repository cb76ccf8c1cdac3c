"""The specs of an environment, and their form in files."""

import collections
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import nests, precision

# Upper limit for one observation or action; a damaged file may have more.
_MAX_ELEMENTS = 2**24


class EnvironmentSpec(NamedTuple):
  """The specs of one environment, named as in `acme.specs.EnvironmentSpec`."""

  observations: Any
  actions: Any
  rewards: Any
  discounts: Any


def environment_spec(environment: Any) -> EnvironmentSpec:
  """Returns the specs of a dm_env or batched environment (of one member).

  Observations are those of a `GuardedEnvironment`: in 32 bits, nested in dicts,
  tuples and lists.
  """
  return EnvironmentSpec(
    observations=precision.narrow_spec(
      nests.plain_nest(environment.observation_spec())
    ),
    actions=environment.action_spec(),
    rewards=environment.reward_spec(),
    discounts=environment.discount_spec(),
  )


def spec_to_json(spec: EnvironmentSpec) -> dict[str, Any]:
  """Returns the specs of observations and actions, for `spec_from_json`."""
  return {
    "observations": _nest_to_json(spec.observations),
    "actions": _leaf_to_json(spec.actions),
  }


def _leaf_to_json(spec: specs.Array) -> dict[str, Any]:
  described: dict[str, Any] = {
    "shape": list(spec.shape), "dtype": np.dtype(spec.dtype).name
  }
  if isinstance(spec, specs.DiscreteArray):
    described["num_values"] = int(spec.num_values)
  elif isinstance(spec, specs.BoundedArray):
    for name in ("minimum", "maximum"):
      described[name] = _bound_to_json(getattr(spec, name), spec.shape)
  return described


def _bound_to_json(bound: np.ndarray, shape: tuple[int, ...]) -> Any:
  """Returns a number if all elements have the same bound, else nested lists.

  JSON has no infinity: writes the string "inf" or "-inf".
  """
  bound = np.broadcast_to(bound, shape)
  if bound.size and np.all(bound == bound.flat[0]):
    bound = bound.flat[0]
  if not np.size(bound):
    return 0

  def plain(x: Any) -> Any:
    if isinstance(x, list):
      return [plain(part) for part in x]
    return str(x) if isinstance(x, float) and math.isinf(x) else x

  return plain(bound.tolist())


def _nest_to_json(nest: Any) -> dict[str, Any]:
  # JAX sorts the keys of a dict, but not those of an ordered one.
  kind = "ordered" if isinstance(nest, collections.OrderedDict) else "dict"
  if isinstance(nest, Mapping):
    return {kind: [[key, _nest_to_json(x)] for key, x in nest.items()]}
  if isinstance(nest, tuple | list):
    return {"sequence": [_nest_to_json(x) for x in nest]}
  return _leaf_to_json(nest)


def spec_from_json(described: dict[str, Any]) -> EnvironmentSpec:
  """Returns specs with the same networks as those given to `spec_to_json`.

  Files of older versions have no bounds of observations. Neither have their
  specs, so that networks take observations as those versions did.

  Raises:
    Exception: of many kinds, if `described` is something else.
  """
  actions = _leaf_from_json(described["actions"])
  if not isinstance(actions, specs.BoundedArray):
    raise ValueError("Actions have neither a number of values nor bounds.")
  return EnvironmentSpec(
    observations=_nest_from_json(described["observations"]),
    actions=actions,
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
  )


def _nest_from_json(described: dict[str, Any]) -> Any:
  for kind, make in (("ordered", collections.OrderedDict), ("dict", dict)):
    if kind in described:
      return make((key, _nest_from_json(x)) for key, x in described[kind])
  if "sequence" in described:
    return tuple(_nest_from_json(x) for x in described["sequence"])
  return _leaf_from_json(described)


def _leaf_from_json(described: dict[str, Any]) -> specs.Array:
  shape, dtype = _shape(described), np.dtype(described["dtype"])
  if "num_values" in described:
    if shape:
      raise ValueError(f"One choice has shape (), not {shape}.")
    return specs.DiscreteArray(described["num_values"], dtype)
  if "minimum" in described:
    # NumPy reads the strings of infinities.
    low, high = (
      np.array(described[name], dtype) for name in ("minimum", "maximum")
    )
    return specs.BoundedArray(shape, dtype, low, high)
  return specs.Array(shape, dtype)


def _shape(described: dict[str, Any]) -> tuple[int, ...]:
  """Returns a shape; raises ValueError if it is damaged."""
  shape = tuple(described["shape"])
  for size in shape:
    checks.check_integer("each size of a shape", size, 0, _MAX_ELEMENTS)
  if math.prod(shape) > _MAX_ELEMENTS:
    raise ValueError(f"{shape} is too large for an observation or an action")
  return shape


def without_bounds(spec: EnvironmentSpec) -> EnvironmentSpec:
  """Returns specs without bounds of observations, as in older files."""
  return spec._replace(
    observations=jax.tree_util.tree_map(
      lambda leaf: specs.Array(leaf.shape, leaf.dtype, leaf.name),
      spec.observations,
    )
  )


def has_bounds(spec: EnvironmentSpec) -> bool:
  """Returns whether any part of the observation has bounds."""
  return any(
    isinstance(leaf, specs.BoundedArray)
    for leaf in jax.tree_util.tree_leaves(spec.observations)
  )


def observations_fit(have: dict[str, Any], wanted: dict[str, Any]) -> bool:
  """Returns whether a policy can take an environment's observations.

  Ignores bounds that networks do not depend on: those of vectors of floats, and
  those that an older version's file leaves out.

  Args:
    have: `spec_to_json` of the environment.
    wanted: the same of the policy.
  """
  ours, theirs = (
    precision.narrow_spec(_nest_from_json(described["observations"]))
    for described in (have, wanted)
  )
  structure: Any = jax.tree_util.tree_structure(ours)
  return structure == jax.tree_util.tree_structure(theirs) and all(
    map(
      _leaf_fits,
      jax.tree_util.tree_leaves(ours),
      jax.tree_util.tree_leaves(theirs),
    )
  )


def _leaf_fits(have: specs.Array, wanted: specs.Array) -> bool:
  if have.shape != wanted.shape or have.dtype != wanted.dtype:
    return False
  is_features = have.dtype.kind == "f" and len(have.shape) < 2
  if is_features or not isinstance(wanted, specs.BoundedArray):
    return True
  return (
    isinstance(have, specs.BoundedArray)
    and bool(np.all(have.minimum == wanted.minimum))
    and bool(np.all(have.maximum == wanted.maximum))
  )
