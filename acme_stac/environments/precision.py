"""Numbers in the 32 bits that networks compute in."""

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
  if isinstance(spec, specs.DiscreteArray) or not isinstance(
    spec, specs.BoundedArray
  ):
    return spec.replace(dtype=dtype)
  low, high = spec.minimum, spec.maximum
  if dtype.kind != "f":
    limits: Any = np.iinfo(dtype.name)
    low, high = (np.clip(x, limits.min, limits.max) for x in (low, high))
  with np.errstate(over="ignore"):  # Bounds beyond all numbers are infinite.
    low, high = low.astype(dtype), high.astype(dtype)
  return spec.replace(dtype=dtype, minimum=low, maximum=high)


def narrow(nest: Any) -> Any:
  """Returns an observation with types of 32 bits in place of wider ones.

  Args:
    nest: of arrays.

  Raises:
    ValueError: if a number does not fit, with the name of its part.
  """

  def narrow_leaf(path: Any, leaf: Any) -> Any:
    name = f"observation{jax.tree_util.keystr(path)}"
    return cast(name, leaf, _NARROW[leaf.dtype]) if is_wide(leaf) else leaf

  return jax.tree_util.tree_map_with_path(narrow_leaf, nest)


def cast(name: str, numbers: Any, dtype: Any) -> np.ndarray:
  """Returns an array in a type; the same array if that is its type.

  Floats may lose digits; nan and infinity stay as they are.

  Args:
    name: of the numbers, for the message.
    numbers: an array, or nested lists of numbers.
    dtype: type of the result.

  Raises:
    ValueError: if a finite number is too large, or a fraction becomes a whole
      number.
  """
  numbers, dtype = np.asarray(numbers), np.dtype(dtype)
  if numbers.dtype == dtype:
    return numbers
  try:
    with np.errstate(over="raise", invalid="ignore"):
      converted = numbers.astype(dtype)
    if dtype.kind == "f" or np.array_equal(converted, numbers):
      return converted
    lost = converted != numbers
  except FloatingPointError:
    lost = np.isfinite(numbers) & (np.abs(numbers) > np.finfo(dtype).max)
  raise ValueError(
    f"{name} has {numbers[lost].flat[0]}, which does not fit {dtype}. Scale or"
    " clip it in a wrapper of the environment."
  )
