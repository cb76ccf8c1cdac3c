"""From observations to the input of torsos."""

import collections
import types

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac.environments import EnvironmentSpec
from acme_stac.networks import preprocessing
from tests.support import helpers


def preprocess(spec, observation, torso="mlp", channels="auto"):
  """Returns the input of a torso for a batch, compiled as in the agent."""
  make = preprocessing.make_preprocessor
  transformed = hk.without_apply_rng(
    hk.transform(lambda x: make(spec, torso, channels)(x))
  )
  params = transformed.init(jax.random.PRNGKey(0), observation)
  return np.asarray(jax.jit(transformed.apply)(params, observation))


def bounded(shape, dtype, low, high):
  return specs.BoundedArray(shape, dtype, low, high)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_one_choice_is_one_hot(dtype):
  spec = specs.DiscreteArray(32, dtype)
  places = np.array([0, 31, 7], dtype)
  np.testing.assert_array_equal(
    preprocess(spec, places), np.eye(32, dtype=np.float32)[places]
  )


@pytest.mark.parametrize("dtype", [np.int8, np.int32])
def test_choices_may_start_anywhere(dtype):
  spec = bounded((), dtype, -128, -124)
  places = np.array([-128, -124], dtype)
  np.testing.assert_array_equal(preprocess(spec, places), np.eye(5)[[0, 4]])


def test_every_component_of_whole_numbers_is_one_hot():
  """Two values are one column, as of a Gymnasium MultiBinary."""
  spec = bounded((3,), np.int64, [0, 0, 2], [2, 1, 5])
  x = np.array([[0, 0, 2], [2, 1, 5]])
  np.testing.assert_array_equal(
    preprocess(spec, x),
    [[1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 1]],
  )
  spec = bounded((4,), np.int8, 0, 1)
  x = np.array([[0, 1, 1, 0]], np.int8)
  np.testing.assert_array_equal(preprocess(spec, x), x)


def test_many_choices_are_embedded():
  number = preprocessing.MAX_ONE_HOT + 1
  spec = bounded((), np.int64, 10, 9 + number)
  out = preprocess(spec, np.array([10, 9 + number, 10]))
  assert out.shape == (3, preprocessing.EMBEDDING_SIZE)
  np.testing.assert_array_equal(out[0], out[2])
  assert np.all(out[0] != out[1])


def test_embeddings_are_learned():
  config = helpers.small_config(num_heads=1, self_tuned=())
  spec = helpers.environment_spec()._replace(
    observations={"place": specs.DiscreteArray(5000, np.int64)}
  )
  networks = acme_stac.make_networks(spec, config)
  params = networks.init(jax.random.PRNGKey(0))
  observation = {"place": np.array([[3, 4999]])}

  def loss(params):
    output = networks.unroll(
      params, observation, (), np.ones((1, 2), np.int32),
      helpers.NOTHING_EMBEDDED,
    )
    return (output.value**2).sum()

  gradient = jax.jit(jax.grad(loss))(params)["observation_embedding"]
  [table] = jax.tree_util.tree_leaves(gradient)
  assert np.unique(np.nonzero(table)[0]).tolist() == [3, 4999]


def test_long_vectors_of_whole_numbers_are_magnitudes():
  spec = bounded((128,), np.uint8, 0, 255)
  x = np.arange(128, dtype=np.uint8)[None]
  np.testing.assert_allclose(preprocess(spec, x), x / 255.0, rtol=1e-6)


@pytest.mark.parametrize("spec", [
  specs.Array((2,), np.float32),
  bounded((2,), np.float32, -5.0, 7.0),
  bounded((2,), np.float32, -np.inf, np.inf),
  specs.Array((2,), np.int32),
  bounded((2,), np.int32, -(2**31), 2**31 - 1),
])
def test_other_vectors_are_unchanged(spec):
  x = np.array([[-3, 6], [0, 1]], spec.dtype)
  np.testing.assert_array_equal(preprocess(spec, x), x)


def test_half_precision_becomes_single():
  out = preprocess(specs.Array((2,), np.float16), np.ones((1, 2), np.float16))
  assert out.dtype == np.float32


@pytest.mark.parametrize("torso", ["mlp", "deep"])
@pytest.mark.parametrize("dtype,low,high,divisor", [
  (np.uint8, 0, 255, 255), (np.uint8, 0, 1, 1), (np.float32, 0, 255, 255),
  (np.float32, 0, 1, 1), (np.uint16, 0, 65535, 65535), (np.int32, 0, 12, 12),
  (bool, False, True, 1),
])
def test_images_are_scaled_by_their_bounds(torso, dtype, low, high, divisor):
  spec = bounded((6, 6, 3), dtype, low, high)
  rng = np.random.default_rng(0)
  x = rng.integers(low, high, (2, 6, 6, 3), endpoint=True).astype(dtype)
  out = preprocess(spec, x, torso)
  expected = x.astype(np.float32) / divisor
  np.testing.assert_allclose(out.reshape(expected.shape), expected, rtol=1e-6)
  assert out.dtype == np.float32


def test_bounds_of_single_pixels():
  low = np.array([[-2.0, 0.0], [0.0, 1.0]])
  high = np.array([[2.0, 0.0], [4.0, 2.0]])
  spec = bounded((2, 2), np.float32, low, high)
  x = np.stack([low, high]).astype(np.float32)
  for torso in ("mlp", "deep"):
    np.testing.assert_array_equal(
      preprocess(spec, x, torso).reshape(2, 4), [[0, 0, 0, 0], [1, 0, 1, 1]]
    )


def test_atari_to_the_last_bit():
  spec = bounded((4, 84, 84), np.uint8, 0, 255)
  x = np.random.default_rng(0).integers(0, 256, (2, 4, 84, 84), np.uint8)

  @jax.jit
  def published(image):
    return jnp.transpose(image, (0, 2, 3, 1)).astype(jnp.float32) / 255.0

  np.testing.assert_array_equal(preprocess(spec, x, "deep"), published(x))


@pytest.mark.parametrize("shape,first", [
  ((4, 84, 84), True), ((3, 210, 160), True), ((3, 7, 7), True),
  ((84, 84, 3), False), ((84, 84, 9), False), ((210, 160, 3), False),
  ((10, 10, 4), False), ((10, 10, 7), False), ((10, 10, 10), False),
  ((1, 5, 5), True), ((7, 7, 3), False),
])
def test_channels_are_found_where_they_are_clear(shape, first):
  x = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
  out = preprocess(bounded(shape, np.float32, 0, 1), x, "deep")
  expected = np.moveaxis(x, 1, -1) if first else x
  np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("shape", [
  (24, 24, 32), (12, 10, 10), (12, 16, 8), (8, 10, 9), (3, 64, 3),
])
def test_channels_are_asked_for_where_they_are_not(shape):
  spec = bounded(shape, np.float32, 0, 1)
  with pytest.raises(ValueError, match="stac.image_channels=last or first"):
    preprocessing.make_preprocessor(spec, "deep")
  preprocessing.make_preprocessor(spec, "mlp")
  x = np.zeros((1, *shape), np.float32)
  assert preprocess(spec, x, "deep", "last").shape == (1, *shape)
  assert preprocess(spec, x, "deep", "first").shape == (
    1, *shape[1:], shape[0]
  )


def test_parts_without_elements_contribute_nothing():
  nothing = bounded((0,), np.float32, np.zeros(0), np.zeros(0))
  image = bounded((6, 6, 3), np.uint8, 0, 255)
  x = np.full((2, 6, 6, 3), 255, np.uint8)
  empty = np.zeros((2, 0), np.float32)
  spec = {"a": nothing, "image": image, "z": specs.Array((0, 3), np.int32)}
  observation = {"a": empty, "image": x, "z": np.zeros((2, 0, 3), np.int32)}
  np.testing.assert_array_equal(
    preprocess(spec, observation, "deep"), np.ones(x.shape)
  )
  assert preprocess(spec, observation).shape == (2, 108)
  with pytest.raises(ValueError, match="no elements"):
    preprocessing.make_preprocessor({"a": nothing})


@pytest.mark.parametrize("make", [
  dict, collections.OrderedDict, types.MappingProxyType,
])
def test_nests(make):
  """Parts come in JAX's order, whatever holds them."""
  spec = make({
    "b": (specs.DiscreteArray(3), [specs.Array((), bool)]),
    "a": make({"x": specs.Array((1,), np.float32)}),
  })
  preprocessor = preprocessing.make_preprocessor(spec)
  out = preprocessor(make({
    "b": (np.array([2]), [np.array([True])]),
    "a": make({"x": np.array([[0.5]], np.float32)}),
  }))
  ordered = make is collections.OrderedDict
  expected = [0, 0, 1, 1, 0.5] if ordered else [0.5, 0, 0, 1, 1]
  np.testing.assert_array_equal(out, [expected])


def test_what_a_torso_cannot_take():
  image = bounded((24, 24, 3), np.uint8, 0, 255)
  for spec, torso, message in (
    ({"image": image, "speed": specs.Array((2,), "f")}, "deep",
     r"observation\['speed'\] \(2,\)\. Set torso to 'mlp'"),
    (specs.Array((4,), np.float32), "deep", "Set torso to 'mlp'"),
    (specs.Array((4, 8, 8, 3), np.uint8), "deep", "Set torso to 'mlp'"),
    (specs.Array((20, 19, 3), np.uint8), "shallow", "at least 20×20"),
    ({"z": specs.Array((2,), np.complex64)}, "mlp", "'z'.* complex64"),
    ({"z": specs.StringArray(())}, "mlp", "'z'.* object"),
  ):
    with pytest.raises(ValueError, match=message):
      preprocessing.make_preprocessor(spec, torso)


def test_networks_take_every_kind_at_once(recwarn):
  """Actor and learner prepare the same input; nothing warns of 64 bits."""
  config = helpers.small_config(lstm_size=8)
  spec = EnvironmentSpec(
    types.MappingProxyType({
      "place": specs.DiscreteArray(2000, np.int64),
      "bits": bounded((3,), np.int8, 0, 1),
      "picture": bounded((4, 4, 3), np.uint8, 0, 255),
      "speed": specs.Array((2,), np.float64),
      "walls": specs.Array((0,), np.float64),
    }),
    specs.DiscreteArray(2), None, None,
  )
  networks = acme_stac.make_networks(spec, config)
  params = networks.init(jax.random.PRNGKey(0))
  rng = np.random.default_rng(0)
  rows = {
    name: rng.integers(0, 2, (4, 3, *leaf.shape)).astype(leaf.dtype)
    for name, leaf in spec.observations.items()
  }
  step_type = np.ones((4, 3), np.int32)
  core = networks.initial_state(3)
  output = jax.jit(networks.unroll)(
    params, rows, core, step_type, helpers.NOTHING_EMBEDDED
  )
  for t in range(4):
    row = {name: x[t] for name, x in rows.items()}
    one, core = jax.jit(networks.step)(
      params, row, core, step_type[t], helpers.NOTHING_EMBEDDED
    )
    np.testing.assert_allclose(one.policy, output.policy[t], atol=2e-5)
  assert not [w for w in recwarn if "truncated" in str(w.message)]
