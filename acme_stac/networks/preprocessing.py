"""Converts observations to the input of a torso, according to their spec.

Each part of an observation is converted by its kind:

- One choice (a `DiscreteArray`, or a bounded integer): one-hot, or an embedding
  beyond `MAX_ONE_HOT` choices.
- A vector of bounded integers: one-hot per component, or 0 and 1 for a
  component of two values. With more than `MAX_ONE_HOT` columns, the vector is
  scaled to [0, 1] instead.
- Two or more axes with bounds: scaled from the bounds to [0, 1]. For
  convolutions, integers without bounds are scaled from [0, 255].
- Booleans: 0 or 1.
- Parts without elements: dropped.
- Anything else, such as vectors of floats with or without bounds: unchanged.

A part without bounds has a spec of type `specs.Array`. Bounds that are infinite
or lie more than `MAX_RANGE` apart are ignored.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

from acme_stac.core.types import Array
from acme_stac.environments import nests

# Maximum number of one-hot columns of a part.
MAX_ONE_HOT = 1024
# Embedding size of a choice among more values than that.
EMBEDDING_SIZE = 64
# Bounds further apart are taken for limits of a type, not of a quantity.
MAX_RANGE = 2**20

_MLP_TORSOS = ("mlp", "layer_norm_mlp")
# Smallest height and width that convolutions without padding accept.
_LEAST_SIZES = {"minatar": 3, "shallow": 20}

# Maps a batch [N, ...] of observations, or of one of their parts, to floats.
Preprocessor: TypeAlias = Callable[[Any], Array]


def make_preprocessor(
  spec: Any, torso: str = "mlp", image_channels: str = "auto"
) -> Preprocessor:
  """Returns the function from a batch of observations to a torso's input.

  The input is one vector of features [N, D] for the MLP torsos, and one image
  [N, height, width, channels] for the others. The function can be compiled and
  differentiated. Call it inside `hk.transform`, because embeddings have
  parameters.

  Args:
    spec: the observation spec of one environment: an array, or a nest of
      mappings, tuples and lists of them.
    torso: a name of `STACConfig.torso`.
    image_channels: which axis of an image holds the channels; a value of
      `STACConfig.image_channels`.

  Raises:
    ValueError: if the torso cannot take such observations, or the axis of an
      image's channels is ambiguous.
  """
  spec = nests.plain_nest(spec)
  used = {}
  named = nests.named_leaves("observation", spec)
  for number, (name, leaf) in enumerate(named):
    if leaf.dtype.kind not in "biuf":
      raise ValueError(
        f"Observations must be real numbers or booleans, but {name} is of type"
        f" {leaf.dtype}. Convert it, or leave it out, in a wrapper of the"
        " environment."
      )
    if math.prod(leaf.shape):
      used[number] = (name, leaf)
  if not used:
    raise ValueError(f"Observations have no elements: their spec is {spec}.")
  if torso in _MLP_TORSOS:
    columns = {
      number: _make_columns(leaf) for number, (_, leaf) in used.items()
    }

    def features(observation: Any) -> Array:
      leaves = jax.tree_util.tree_leaves(nests.select(spec, observation))
      parts = [
        part(leaves[number].reshape(leaves[number].shape[0], -1))
        for number, part in columns.items()
      ]
      return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    return features
  if len(used) != 1:
    raise ValueError(
      f"The {torso!r} torso takes one image, but observations have"
      f" {len(used)} parts:"
      f" {', '.join(f'{name} {leaf.shape}' for name, leaf in used.values())}."
      " Set torso to 'mlp', which takes them all, keep only the image in a"
      " wrapper, or write networks of your own."
    )
  [(image_number, (name, leaf))] = used.items()
  image = _make_image(name, leaf, torso, image_channels)
  return lambda observation: image(
    jax.tree_util.tree_leaves(nests.select(spec, observation))[image_number]
  )


def _make_columns(spec: specs.Array) -> Preprocessor:
  """Returns the function from a part [N, elements] to floats [N, D]."""
  if len(spec.shape) > 1:
    return _make_scale(spec)
  if spec.dtype.kind not in "iu" or not isinstance(spec, specs.BoundedArray):
    return _to_float
  # Python integers: a difference of bounds can need 33 bits.
  size = math.prod(spec.shape)
  low = [int(x) for x in np.broadcast_to(spec.minimum, size)]
  high = [int(x) for x in np.broadcast_to(spec.maximum, size)]
  counts = [b - a + 1 for a, b in zip(low, high, strict=True)]
  # For two values one column, that of the second, is enough.
  widths = [1 if count == 2 else count for count in counts]
  if sum(widths) <= MAX_ONE_HOT:
    component = np.repeat(np.arange(size), widths)
    values = np.concatenate([
      np.arange(b + 1 - width, b + 1)
      for b, width in zip(high, widths, strict=True)
    ]).astype(spec.dtype)
    return lambda x: (x[:, component] == values).astype(jnp.float32)
  if size == 1 and counts[0] <= MAX_RANGE:
    return lambda x: hk.Embed(
      counts[0], EMBEDDING_SIZE, name="observation_embedding"
    )(_subtract(x[:, 0], low[0]))
  return _make_scale(spec)


def _make_scale(
  spec: specs.Array, default_span: float | None = None
) -> Preprocessor:
  """Returns the function that scales a part from its bounds to [0, 1].

  Args:
    spec: spec of the part; its elements may be flattened.
    default_span: the divisor of integers without bounds; None to keep them.
  """
  bounds = _bounds(spec)
  if bounds is None:
    if default_span is None or spec.dtype.kind not in "iu":
      return _to_float
    bounds = np.zeros(1), np.full(1, default_span)
  low, span = bounds

  def scale(x: Array) -> Array:
    if np.any(low):
      x = _subtract(x, _of_elements(low, spec.shape, x))
    x = _to_float(x)
    return x if np.all(span == 1.0) else x / _of_elements(span, spec.shape, x)

  return scale


def _bounds(spec: specs.Array) -> tuple[np.ndarray, np.ndarray] | None:
  """Returns the minimum and span of a part's elements; None without bounds."""
  if not isinstance(spec, specs.BoundedArray) or spec.dtype.kind == "b":
    return None
  low = np.asarray(spec.minimum, np.float64)
  with np.errstate(over="ignore", invalid="ignore"):
    span = np.asarray(spec.maximum, np.float64) - low
  if not np.all(span <= MAX_RANGE):  # Also catches NaN.
    return None
  # An element that never changes stays at 0.
  return low, np.where(span == 0.0, 1.0, span)


def _of_elements(bound: np.ndarray, shape: tuple[int, ...], x: Array) -> Any:
  """Returns the elements' bounds in the shape of a row of x, or one float."""
  if np.all(bound == bound.flat[0]):
    return float(bound.flat[0])
  bound = np.broadcast_to(bound, shape).astype(np.float32)
  return bound.reshape(x.shape[1:])


def _subtract(x: Array, low: Any) -> Array:
  """Returns x − low without overflow of narrow integer types."""
  if not jnp.issubdtype(x.dtype, jnp.integer):
    return x - low
  return x.astype(jnp.int32) - np.asarray(low).astype(np.int64).astype(np.int32)


def _to_float(x: Array) -> Array:
  """Returns floats of at least single precision."""
  wide = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize >= 4
  return x if wide else x.astype(jnp.float32)


def _make_image(
  name: str, spec: specs.Array, torso: str, image_channels: str
) -> Preprocessor:
  """Returns the function from images [N, ...] to floats [N, H, W, C].

  Raises:
    ValueError: if the part is not an image, is too small, or the axis of its
      channels is ambiguous.
  """
  shape = spec.shape
  if len(shape) not in (2, 3):
    raise ValueError(
      f"The {torso!r} torso takes one image [height, width] or [height, width,"
      f" channels], but {name} has shape {shape}. Set torso to 'mlp'."
    )
  first = len(shape) == 3 and channels_first(shape, image_channels)
  height_and_width = shape[1:] if first else shape[:2]
  least = _LEAST_SIZES.get(torso, 1)
  if min(height_and_width) < least:
    raise ValueError(
      f"The {torso!r} torso needs images of at least {least}×{least} pixels,"
      f" but {name} has shape {shape}. Set torso to 'deep' or 'mlp'."
    )
  scale = _make_scale(spec, default_span=255.0)

  def image(x: Array) -> Array:
    x = scale(x)
    if x.ndim == 3:
      x = x[..., None]
    return jnp.transpose(x, (0, 2, 3, 1)) if first else x

  return image


def channels_first(shape: tuple[int, ...], image_channels: str) -> bool:
  """Returns whether images of a shape have their channels first.

  With "auto", the channels are the axis that is shorter than both others, if
  these are equal or more than twice as long; in a cube, the last axis.

  Args:
    shape: three sizes.
    image_channels: "first", "last", or "auto" to infer it from the shape.

  Raises:
    ValueError: if it is "auto" and the shape is ambiguous.
  """
  if image_channels != "auto":
    return image_channels == "first"
  first, middle, last = shape
  if _are_channels(last, first, middle) or first == middle == last:
    return False
  if _are_channels(first, middle, last):
    return True
  raise ValueError(
    f"An image of shape {shape} can be {first}×{middle} pixels with {last}"
    f" channels, or {middle}×{last} pixels with {first}. Say which with"
    " --config.stac.image_channels=last or first; in Python it is the field"
    " image_channels of STACConfig."
  )


def _are_channels(channels: int, height: int, width: int) -> bool:
  shorter = min(height, width)
  return channels < shorter and (height == width or 2 * channels < shorter)
