"""Torsos: preprocessed observations [N, ...] -> features [N, D].

`preprocessing` supplies float vectors [N, D] for MLP torsos, and float images
[N, H, W, C] for the others.
"""

import math
from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

Array = jax.Array

# Backends on which the gradient of max pooling is computed by selections rather
# than by XLA's scatter. Selections are faster on CPUs. On an H100, scatter
# takes 0.9 of their time, which saves 1% of an update, but its order of
# additions, and so its rounding, changes from run to run.
_SELECTING_BACKENDS = ("cpu", "gpu")
# Backends on which a 3×3 convolution of few channels is one product with a
# matrix of patches. On a CPU, inside a compiled loop, an update with XLA's
# convolution takes eight times as long. Over several seeds, `vmap` makes the
# product a batched one, but the convolution a grouped one.
_PATCHING_BACKENDS = ("cpu", "gpu")


def max_pool(images: Array) -> Array:
  """Returns maxima over 3×3 windows with stride 2 and padding "SAME".

  The derivative goes to the first of several equal maxima in a window. How it
  is computed depends on the default backend; `python -m
  programs.benchmark device --only=pooling` compares the ways.

  Args:
    images: [N, H, W, C].

  Returns:
    [N, ceil(H / 2), ceil(W / 2), C].
  """
  if jax.default_backend() in _SELECTING_BACKENDS:
    return max_pool_selecting(images)
  return max_pool_scattering(images)


def max_pool_scattering(images: Array) -> Array:
  """Returns the value of `max_pool`, with XLA's own derivative.

  XLA scatters the gradient to the maxima. CPUs do this window by window, which
  took a third of a deep torso's update.
  """
  return hk.max_pool(images, (3, 3, 1), (2, 2, 1), "SAME")


@jax.custom_jvp
def max_pool_selecting(images: Array) -> Array:
  """Returns the value of `max_pool`, differentiated by selections and sums."""
  return max_pool_scattering(images)


@max_pool_selecting.defjvp
def _max_pool_jvp(primals, tangents):
  (images,), (tangent,) = primals, tangents
  pooled = max_pool_selecting(images)
  # Columns first, so that ties go to the first row, then to the first column.
  for axis in (2, 1):
    images, tangent = _pool_axis(images, tangent, axis)
  return pooled, tangent


def _pool_axis(images: Array, tangent: Array, axis: int):
  """Returns maxima along an axis and their tangents."""
  size = images.shape[axis]
  pooled = -(-size // 2)
  before = max(2 * pooled + 1 - size, 0) // 2

  def windows(x: Array, padding: float) -> list[Array]:
    """Returns the first, second and third elements of all windows."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (before, 2 * pooled + 2 - size - before)
    x = jnp.pad(x, pads, constant_values=padding)
    shape = (*x.shape[:axis], pooled + 1, 2, *x.shape[axis + 1 :])
    even, odd = jnp.moveaxis(x.reshape(shape), axis + 1, 0)
    return [
      jax.lax.slice_in_dim(part, start, start + pooled, axis=axis)
      for part, start in ((even, 0), (odd, 0), (even, 1))
    ]

  maximum, *others = windows(images, -jnp.inf)
  chosen, *other_tangents = windows(tangent, 0.0)
  for other, other_tangent in zip(others, other_tangents, strict=True):
    larger = other > maximum
    maximum = jnp.where(larger, other, maximum)
    chosen = jnp.where(larger, other_tangent, chosen)
  return maximum, chosen


class MLPTorso(hk.Module):
  """Fully connected torso for feature observations; ReLU after every layer."""

  def __init__(self, hidden_sizes: Sequence[int], name: str = "mlp_torso"):
    super().__init__(name=name)
    self._hidden_sizes = tuple(hidden_sizes)

  def __call__(self, observation: Array) -> Array:
    mlp = hk.nets.MLP(self._hidden_sizes, activate_final=True)
    return mlp(observation)


class LayerNormMLPTorso(hk.Module):
  """Fully connected torso that normalises the scale of observations.

  As in Acme's `LayerNormMLP`, layer normalisation and tanh follow the first
  layer, and ReLU the others. Without normalisation, mixing velocities of about
  10 with angles makes values oscillate from step to step.
  """

  def __init__(
    self, hidden_sizes: Sequence[int], name: str = "layer_norm_mlp_torso"
  ):
    super().__init__(name=name)
    self._hidden_sizes = tuple(hidden_sizes)

  def __call__(self, observation: Array) -> Array:
    x = hk.Linear(self._hidden_sizes[0])(observation)
    x = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(x)
    mlp = hk.nets.MLP(self._hidden_sizes[1:], activate_final=True)
    return mlp(jnp.tanh(x))


class ShallowTorso(hk.Module):
  """IMPALA's shallow convolutional torso (Espeholt et al. 2018, Fig. 3 left).

  16 8×8 filters with stride 4, 32 4×4 filters with stride 2, 256 units.
  """

  def __init__(self, name: str = "shallow_torso"):
    super().__init__(name=name)

  def __call__(self, observation: Array) -> Array:
    x = hk.Conv2D(16, 8, 4, padding="VALID")(observation)
    x = jax.nn.relu(x)
    x = jax.nn.relu(hk.Conv2D(32, 4, 2, padding="VALID")(x))
    return jax.nn.relu(hk.Linear(256)(hk.Flatten()(x)))


class PatchConv2D(hk.Module):
  """Computes `hk.Conv2D(channels, 3, padding="VALID")` as one matrix product.

  Has the same parameters, with the same initial values.
  """

  def __init__(self, channels: int, name: str = "conv2_d"):
    super().__init__(name=name)
    self._channels = channels

  def __call__(self, images: Array) -> Array:
    height, width, channels = images.shape[1:]
    patches = jnp.concatenate(
      [
        images[:, row : height - 2 + row, column : width - 2 + column]
        for row in range(3)
        for column in range(3)
      ],
      axis=-1,
    )
    size = 9 * channels
    weights = hk.get_parameter(
      "w", (3, 3, channels, self._channels), images.dtype,
      init=hk.initializers.TruncatedNormal(1.0 / math.sqrt(size)),
    )
    bias = hk.get_parameter(
      "b", (self._channels,), images.dtype, init=jnp.zeros
    )
    return patches @ weights.reshape(size, self._channels) + bias


class MinAtarTorso(hk.Module):
  """Torso for boards of a few cells, such as MinAtar's (Young & Tian 2019).

  16 3×3 filters without padding, 128 units.
  """

  def __init__(self, name: str = "minatar_torso"):
    super().__init__(name=name)

  def __call__(self, observation: Array) -> Array:
    if jax.default_backend() in _PATCHING_BACKENDS:
      x = PatchConv2D(16)(observation)
    else:
      x = hk.Conv2D(16, 3, padding="VALID")(observation)
    return jax.nn.relu(hk.Linear(128)(hk.Flatten()(jax.nn.relu(x))))


class ResidualBlock(hk.Module):
  """Adds two 3×3 convolutions, each after a ReLU, to the input."""

  def __init__(self, channels: int, name: str = "residual_block"):
    super().__init__(name=name)
    self._channels = channels

  def __call__(self, x: Array) -> Array:
    y = hk.Conv2D(self._channels, 3)(jax.nn.relu(x))
    y = hk.Conv2D(self._channels, 3)(jax.nn.relu(y))
    return x + y


class DeepTorso(hk.Module):
  """IMPALA's deep residual torso (Table 2; Espeholt et al. 2018, Fig. 3 right).

  Each stage has a 3×3 convolution, 3×3 max pooling with stride 2 and two
  residual blocks; a layer of 256 units follows the last stage. With `strided`,
  used for control from pixels, a convolution of stride 2 replaces the pooling.
  """

  def __init__(
    self,
    channels: Sequence[int],
    strided: bool = False,
    name: str = "deep_torso",
  ):
    super().__init__(name=name)
    self._channels = tuple(channels)
    self._strided = strided

  def __call__(self, observation: Array) -> Array:
    x = observation
    for channels in self._channels:
      x = hk.Conv2D(channels, 3, stride=2 if self._strided else 1)(x)
      if not self._strided:
        x = max_pool(x)
      x = ResidualBlock(channels)(x)
      x = ResidualBlock(channels)(x)
    x = jax.nn.relu(x)
    return jax.nn.relu(hk.Linear(256)(hk.Flatten()(x)))
