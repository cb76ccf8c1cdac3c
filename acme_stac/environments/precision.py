"""Observations in the 32 bits that networks compute in."""

from typing import Any

import jax
import numpy as np
from dm_env import specs

_NARROW = {
  np.dtype(np.int64): np.dtype(np.int32),
  np.dtype(np.uint64): np.dtype(np.uint32),
  np.dtype(np.float64): np.dtype(np.float32),
  np.dtype(np.longdouble): np.dtype(np.float32),
}


def is_wide(leaf: Any) -> bool:
  """Returns whether an array or its spec has a type of more than 32 bits."""
  return leaf.dtype in _NARROW


def narrow_spec(nest: Any) -> Any:
  """Returns a nest of specs with types of 32 bits in place of wider ones."""
  return jax.tree_util.tree_map(_narrow_leaf_spec, nest)


def _narrow_leaf_spec(spec: specs.Array) -> specs.Array:
  if not isinstance(spec, specs.Array) or not is_wide(spec):
    return spec
  dtype = _NARROW[spec.dtype]
  if isinstance(spec, specs.DiscreteArray):
    return specs.DiscreteArray(spec.num_values, dtype, spec.name)
  if not isinstance(spec, specs.BoundedArray):
    return specs.Array(spec.shape, dtype, spec.name)
  low, high = spec.minimum, spec.maximum
  if dtype.kind != "f":
    least, most = _limits(dtype)
    low, high = np.clip(low, least, most), np.clip(high, least, most)
  with np.errstate(over="ignore"):  # Bounds beyond all numbers are infinite.
    low, high = low.astype(dtype), high.astype(dtype)
  return specs.BoundedArray(spec.shape, dtype, low, high, spec.name)


def narrow(nest: Any) -> Any:
  """Returns an observation with types of 32 bits in place of wider ones.

  Args:
    nest: of arrays.

  Raises:
    ValueError: if a number does not fit, with the name of its part.
  """
  return jax.tree_util.tree_map_with_path(_narrow_leaf, nest)


def _narrow_leaf(path: Any, leaf: Any) -> Any:
  if not is_wide(leaf):
    return leaf
  dtype = _NARROW[leaf.dtype]
  with np.errstate(over="ignore"):
    narrowed = leaf.astype(dtype)
  if dtype.kind == "f":
    lost = np.isinf(narrowed) & np.isfinite(leaf)
  else:
    lost = narrowed != leaf
  if np.any(lost):
    least, most = _limits(dtype)
    raise ValueError(
      f"observation{jax.tree_util.keystr(path)} has {leaf[lost].flat[0]!r}, but"
      f" networks take it as {dtype}, whose numbers are from {least} to {most}."
      " Scale or clip it in a wrapper of the environment."
    )
  return narrowed


def narrow_numbers(name: str, numbers: Any) -> np.ndarray:
  """Returns rewards or discounts [N] as floats of 32 bits.

  Args:
    name: of the numbers, for the message.
    numbers: [N].

  Raises:
    ValueError: if a finite number does not fit.
  """
  try:
    with np.errstate(over="raise"):
      return np.asarray(numbers).astype(np.float32)
  except FloatingPointError:
    raise ValueError(
      f"{name} has {np.max(np.abs(numbers)):g}, but networks take float32,"
      f" whose largest number is {np.finfo(np.float32).max:g}. Scale or clip it"
      " in a wrapper of the environment."
    ) from None


def _limits(dtype: Any) -> tuple[Any, Any]:
  limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
  return limits.min, limits.max
