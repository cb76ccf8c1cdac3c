"""Torsos of Table 2: observation [N, ...] -> features [N, D]."""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

Array = jax.Array


def flatten_observation(observation) -> Array:
  """Concatenates a nest of arrays [N, ...] to one float array [N, D]."""
  leaves = []
  for leaf in jax.tree_util.tree_leaves(observation):
    leaf = leaf.reshape(leaf.shape[0], -1)
    is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
    leaves.append(leaf if is_float else leaf.astype(jnp.float32))
  return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def prepare_image(image: Array) -> Array:
  """Returns an image batch as floats, channels last: [N, H, W, C].

  Integer pixels are scaled from [0, 255] to [0, 1]. An image whose first axis
  is smaller than its last is taken to have its channels first, as Atari's frame
  stacks [4, 84, 84] do.
  """
  if image.ndim == 3:
    image = image[..., None]
  if image.shape[1] < image.shape[3]:
    image = jnp.transpose(image, (0, 2, 3, 1))
  if jnp.issubdtype(image.dtype, jnp.integer):
    return image.astype(jnp.float32) / 255.0
  return image


class MLPTorso(hk.Module):
  """Fully connected torso of feature observations; ReLU after every layer."""

  def __init__(self, hidden_sizes: Sequence[int], name: str = "mlp_torso"):
    super().__init__(name=name)
    self._hidden_sizes = tuple(hidden_sizes)

  def __call__(self, observation) -> Array:
    mlp = hk.nets.MLP(self._hidden_sizes, activate_final=True)
    return mlp(flatten_observation(observation))


class ShallowTorso(hk.Module):
  """IMPALA's shallow convolutional torso (Espeholt et al. 2018, Fig. 3 left).

  16 8×8 filters with stride 4, 32 4×4 filters with stride 2, 256 units.
  """

  def __init__(self, name: str = "shallow_torso"):
    super().__init__(name=name)

  def __call__(self, observation) -> Array:
    x = prepare_image(observation)
    x = jax.nn.relu(hk.Conv2D(16, 8, 4, padding="VALID")(x))
    x = jax.nn.relu(hk.Conv2D(32, 4, 2, padding="VALID")(x))
    return jax.nn.relu(hk.Linear(256)(hk.Flatten()(x)))


class ResidualBlock(hk.Module):
  """Two 3×3 convolutions of ReLU inputs, added to the input."""

  def __init__(self, channels: int, name: str = "residual_block"):
    super().__init__(name=name)
    self._channels = channels

  def __call__(self, x: Array) -> Array:
    y = hk.Conv2D(self._channels, 3)(jax.nn.relu(x))
    y = hk.Conv2D(self._channels, 3)(jax.nn.relu(y))
    return x + y


class DeepTorso(hk.Module):
  """IMPALA's deep residual torso (Table 2; Espeholt et al. 2018, Fig. 3 right).

  Each stage is a 3×3 convolution, 3×3 max pooling with stride 2 and two
  residual blocks; 256 units follow the last stage. For control from pixels the
  convolution has stride 2 and there is no pooling.
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

  def __call__(self, observation) -> Array:
    x = prepare_image(observation)
    for channels in self._channels:
      x = hk.Conv2D(channels, 3, stride=2 if self._strided else 1)(x)
      if not self._strided:
        x = hk.max_pool(x, window_shape=(3, 3, 1), strides=(2, 2, 1),
                        padding="SAME")
      x = ResidualBlock(channels)(x)
      x = ResidualBlock(channels)(x)
    x = jax.nn.relu(x)
    return jax.nn.relu(hk.Linear(256)(hk.Flatten()(x)))
