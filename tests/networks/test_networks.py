import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dm_env import specs

import acme_stac
from acme_stac.environments import EnvironmentSpec
from acme_stac.networks import torsos
from tests.support import helpers

IMAGE = {"observation": (4, 84, 84), "dtype": np.uint8}


def count(params):
  return sum(x.size for x in jax.tree_util.tree_leaves(params))


def rows(networks, config, time=5, batch=3, observation=(4,), seed=0):
  rng = np.random.default_rng(seed)
  step_type = np.full((time, batch), dm_env.StepType.MID, np.int32)
  step_type[2, 1] = dm_env.StepType.FIRST
  step_type[0, 2] = dm_env.StepType.FIRST
  core = jax.tree_util.tree_map(
    lambda x: rng.normal(size=x.shape).astype(np.float32),
    networks.initial_state(batch),
  )
  if np.prod(observation) > 1000:
    data = rng.integers(0, 255, (time, batch, *observation)).astype(np.uint8)
  else:
    data = rng.normal(size=(time, batch, *observation)).astype(np.float32)
  return data, core, step_type


@pytest.mark.parametrize("lstm_size", [None, 256])
@pytest.mark.parametrize(
  "torso,sizes,spec",
  [
    ("mlp", (256, 256), {}),
    ("layer_norm_mlp", (256, 256), {}),
    ("minatar", (), {"observation": (10, 10, 4)}),
    ("shallow", (), IMAGE),
    ("deep", (16, 32, 32), IMAGE),
    ("deep_strided", (32, 32, 32), IMAGE),
  ],
)
def test_unroll_is_step_after_step(torso, sizes, spec, lstm_size):
  """What the actor computes one by one, the learner computes at once.

  Episode starts inside the sequence reset the core, only for their member.
  """
  config = helpers.small_config(
    torso=torso, torso_sizes=sizes, lstm_size=lstm_size
  )
  networks = helpers.networks(config, **spec)
  params = networks.init(jax.random.PRNGKey(0))
  data, core, step_type = rows(
    networks, config, observation=spec.get("observation", (4,))
  )
  output = jax.jit(networks.unroll)(
    params, data, core, step_type, helpers.NOTHING_EMBEDDED
  )
  assert output.policy.shape == (5, 3, 3, helpers.NUM_ACTIONS)
  assert output.value.shape == (5, 3, 3)
  step = jax.jit(networks.step)
  for t in range(5):
    one, core = step(
      params, data[t], core, step_type[t], helpers.NOTHING_EMBEDDED
    )
    np.testing.assert_allclose(one.policy, output.policy[t], atol=2e-5)
    np.testing.assert_allclose(one.value, output.value[t], atol=2e-5)


def test_core_is_reset_where_an_episode_starts():
  config = helpers.small_config(lstm_size=16)
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  data, core, step_type = rows(networks, config)
  before = networks.unroll(
    params, data, core, step_type, helpers.NOTHING_EMBEDDED
  ).value
  other = data.copy()
  other[:2] += 1.0
  after = networks.unroll(
    params, other, core, step_type, helpers.NOTHING_EMBEDDED
  ).value
  changed = np.any(np.asarray(before != after), axis=-1)
  # Member 1 starts an episode at row 2: nothing older reaches it.
  assert not changed[2:, 1].any()
  assert changed[2:, 0].all()
  # Member 2 starts one at row 0: its stored state does not matter.
  moved = jax.tree_util.tree_map(lambda x: x + 1.0, core)
  again = networks.unroll(
    params, data, moved, step_type, helpers.NOTHING_EMBEDDED
  ).value
  np.testing.assert_array_equal(again[:, 2], before[:, 2])
  assert np.any(again[:, 0] != before[:, 0])


def test_parameter_counts_of_table_2():
  """Counted by hand from the layers' sizes."""

  def linear(inputs, outputs):
    return inputs * outputs + outputs

  def conv(inputs, outputs, size=3):
    return inputs * outputs * size**2 + outputs

  heads = 3 * (
    linear(256, 256) + linear(256, 6) + linear(256, 256) + linear(256, 1)
  )
  deep = linear(11 * 11 * 32, 256)
  for inputs, outputs in ((4, 16), (16, 32), (32, 32)):
    deep += conv(inputs, outputs) + 4 * conv(outputs, outputs)
  shallow = conv(4, 16, 8) + conv(16, 32, 4) + linear(9 * 9 * 32, 256)
  key = jax.random.PRNGKey(0)
  for torso, size in (("deep", deep), ("shallow", shallow)):
    config = acme_stac.make_config("stacx", "atari", torso=torso)
    networks = helpers.networks(config, **IMAGE, actions=6)
    assert count(jax.eval_shape(networks.init, key)) == size + heads
  config = acme_stac.make_config("stacx", "small", lstm_size=256)
  networks = helpers.networks(config, actions=6)
  mlp = linear(4, 256) + linear(256, 256) + linear(2 * 256, 4 * 256)
  assert count(networks.init(key)) == mlp + heads


def test_parameter_counts_of_control():
  """Table 2's control columns, with two outputs per action component."""

  def linear(inputs, outputs):
    return inputs * outputs + outputs

  def heads(number, outputs):
    return number * (
      2 * linear(256, 256) + linear(256, outputs) + linear(256, 1)
    )

  lstm = linear(2 * 256, 4 * 256)
  key = jax.random.PRNGKey(0)
  config = acme_stac.make_config("stacx", "control_features")
  networks = helpers.networks(config, actions=helpers.CONTINUOUS)
  features = linear(4, 256) + linear(256, 256) + lstm + heads(3, 4)
  assert count(jax.eval_shape(networks.init, key)) == features
  config = acme_stac.make_config("stac", "control_pixels")
  networks = helpers.networks(
    config, observation=(84, 84, 3), dtype=np.uint8, actions=helpers.CONTINUOUS
  )
  pixels = linear(11 * 11 * 32, 256) + lstm + heads(1, 4)
  for inputs in (3, 32, 32):
    pixels += inputs * 32 * 9 + 32 + 4 * (32 * 32 * 9 + 32)
  assert count(jax.eval_shape(networks.init, key)) == pixels


def test_parameter_counts_of_young_and_tian():
  """MinAtar's: a convolution, a layer and a linear policy and value."""
  config = acme_stac.make_config("impala", "minatar")
  networks = helpers.networks(config, observation=(10, 10, 4), dtype=bool)
  params = jax.eval_shape(networks.init, jax.random.PRNGKey(0))
  torso = (9 * 4 * 16 + 16) + (8 * 8 * 16 * 128 + 128)
  assert count(params) == torso + (128 + 1) * (helpers.NUM_ACTIONS + 1)


def test_actor_and_critic_without_a_shared_torso():
  """The replication's networks: three layers each, 40 hidden units."""
  config = acme_stac.make_config("a2c_meta_gamma", "small")
  networks = helpers.networks(config, actions=2)
  params = networks.init(jax.random.PRNGKey(0))
  body = (4 * 40 + 40) + (40 * 40 + 40)
  assert count(params) == 2 * body + (40 * 2 + 2) + (40 + 1)


def test_average_ensemble_has_one_value_more():
  config = helpers.small_config("stacx_average_ensemble")
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  data, core, step_type = rows(networks, config)
  output = networks.unroll(
    params, data, core, step_type, helpers.NOTHING_EMBEDDED
  )
  assert output.value.shape == (5, 3, 4)
  acting = acme_stac.core.acting_output(output, config)
  np.testing.assert_allclose(
    acting.policy[:, :, 0], np.mean(output.policy, axis=2), rtol=1e-5
  )
  np.testing.assert_array_equal(acting.value[..., 0], output.value[..., 3])


@pytest.mark.parametrize("per_head", [False, True])
def test_embedding(per_head):
  """Each head sees its own γ, by one embedding or by one of its own."""
  config = helpers.small_config(
    "stacx_gamma_embedding", embedding_per_head=per_head
  )
  networks = helpers.networks(config)
  params = networks.init(jax.random.PRNGKey(0))
  embeddings = [name for name in params if "embedding" in name]
  assert len(embeddings) == (3 if per_head else 1)
  for name in embeddings:
    assert params[name]["w"].shape == (1, config.embedding_size)
  data, core, step_type = rows(networks, config)
  gammas = np.array([[0.9], [0.9], [0.9]], np.float32)
  before = networks.unroll(params, data, core, step_type, gammas)
  gammas[1] = 0.5
  after = networks.unroll(params, data, core, step_type, gammas)
  for part in ("policy", "value"):
    difference = getattr(before, part) != getattr(after, part)
    difference = np.asarray(difference).reshape(5 * 3, 3, -1).any((0, 2))
    np.testing.assert_array_equal(difference, [False, True, False])


def test_channels_first_and_last_are_the_same_image():
  config = helpers.small_config(torso="deep", torso_sizes=(4,))
  first = helpers.networks(config, observation=(4, 20, 20), dtype=np.uint8)
  last = helpers.networks(config, observation=(20, 20, 4), dtype=np.uint8)
  image = np.random.default_rng(0).integers(
    0, 255, (1, 2, 4, 20, 20), dtype=np.uint8
  )
  params = first.init(jax.random.PRNGKey(0))
  step_type = jnp.ones((1, 2), jnp.int32)
  a = first.unroll(
    params, image, (), step_type, helpers.NOTHING_EMBEDDED
  )
  b = last.unroll(
    params, np.moveaxis(image, 2, -1), (), step_type, helpers.NOTHING_EMBEDDED
  )
  np.testing.assert_allclose(a.policy, b.policy, rtol=1e-5)


def test_nested_observations():
  config = helpers.small_config()
  spec = EnvironmentSpec(
    {"a": specs.Array((2,), np.float64), "b": specs.Array((), np.int64)},
    specs.DiscreteArray(2),
    None,
    None,
  )
  networks = acme_stac.make_networks(spec, config)
  params = networks.init(jax.random.PRNGKey(0))
  data = {"a": np.zeros((1, 3, 2)), "b": np.zeros((1, 3), int)}
  out = networks.unroll(
    params, data, (), np.ones((1, 3), np.int32), helpers.NOTHING_EMBEDDED
  )
  assert out.value.shape == (1, 3, 3)


def transformed_convolutions():
  """Returns a convolution as Haiku's module and as one matrix product."""
  return [
    hk.without_apply_rng(hk.transform(lambda x, make=make: make()(x)))
    for make in (
      lambda: hk.Conv2D(5, 3, padding="VALID"),
      lambda: torsos.PatchConv2D(5),
    )
  ]


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (1, 3, 3, 1)])
def test_convolution_of_patches_is_that_of_haiku(shape):
  """Parameters, value, gradient and the metagradient's second derivative."""
  with helpers.float64():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=shape))
    haikus, patches = transformed_convolutions()
    params = haikus.init(jax.random.PRNGKey(1), images)
    jax.tree_util.tree_map(
      np.testing.assert_array_equal,
      patches.init(jax.random.PRNGKey(1), images), params,
    )
    params = jax.tree_util.tree_map(
      lambda x: jnp.asarray(rng.normal(size=x.shape)), params
    )
    direction = jax.tree_util.tree_map(jnp.sin, params)

    def along(convolution, images):
      gradient = jax.grad(
        lambda p: jnp.sum(jnp.sin(convolution.apply(p, images)))
      )(params)
      return sum(jax.tree_util.tree_leaves(
        jax.tree_util.tree_map(jnp.vdot, gradient, direction)
      ))

    for function in (
      lambda c: c.apply(params, images),
      lambda c: jax.grad(along, 1)(c, images),
    ):
      np.testing.assert_allclose(
        function(patches), function(haikus), rtol=1e-12, atol=1e-12
      )


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_small_torso_of_every_backend_reads_the_same_checkpoint(
  backend, monkeypatch
):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  torso = hk.without_apply_rng(
    hk.transform(lambda x: torsos.MinAtarTorso()(x))
  )
  board = np.random.default_rng(0).normal(size=(3, 10, 10, 4)).astype("f")
  params = torso.init(jax.random.PRNGKey(0), board)
  assert {name: x["w"].shape for name, x in params.items()} == {
    "minatar_torso/conv2_d": (3, 3, 4, 16),
    "minatar_torso/linear": (8 * 8 * 16, 128),
  }
  w, b = (params["minatar_torso/conv2_d"][name] for name in "wb")
  expected = jax.lax.conv_general_dilated(
    board, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  expected = np.maximum(expected + b, 0.0).reshape(3, -1)
  w, b = (params["minatar_torso/linear"][name] for name in "wb")
  np.testing.assert_allclose(
    torso.apply(params, board), np.maximum(expected @ w + b, 0.0), atol=1e-5
  )


def haiku_max_pool(images):
  return hk.max_pool(images, (3, 3, 1), (2, 2, 1), "SAME")


@pytest.mark.parametrize("size", [84, 42, 21, 11, 1])
def test_max_pool_is_that_of_haiku(size):
  rng = np.random.default_rng(size)
  # Most windows have several equal maxima.
  images = rng.integers(-2, 3, (2, size, size, 3)).astype(np.float32)
  tangent = rng.normal(size=images.shape).astype(np.float32)
  expected, pull_back = jax.vjp(haiku_max_pool, images)
  pooled, new_pull_back = jax.vjp(torsos.max_pool_selecting, images)
  np.testing.assert_array_equal(pooled, expected)
  cotangent = rng.normal(size=pooled.shape).astype(np.float32)
  np.testing.assert_allclose(
    new_pull_back(cotangent)[0], pull_back(cotangent)[0], atol=1e-5
  )
  # Forwards it is the transpose of that.
  _, pushed = jax.jvp(torsos.max_pool_selecting, (images,), (tangent,))
  np.testing.assert_allclose(
    np.vdot(pushed, cotangent), np.vdot(tangent, pull_back(cotangent)[0]),
    rtol=1e-3,
  )


def test_second_derivative_of_max_pool():
  """The metagradient's: of a gradient along a direction, backwards."""
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, 9, 8, 3)).astype(np.float32)
  direction = rng.normal(size=images.shape).astype(np.float32)

  def along(scale, pooling):
    gradient = jax.grad(
      lambda x: jnp.sum(jnp.sin(scale * pooling(x * x)))
    )(images)
    return jnp.vdot(gradient, direction)

  expected = jax.grad(along)(0.7, haiku_max_pool)
  assert abs(expected) > 1.0
  np.testing.assert_allclose(
    jax.grad(along)(0.7, torsos.max_pool_selecting), expected, rtol=1e-4
  )


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_pooling_of_every_backend_has_the_same_derivative(backend, monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  images = np.random.default_rng(0).normal(size=(2, 8, 9, 3)).astype("f")

  def gradient(pooling):
    return jax.grad(lambda x: jnp.sum(jnp.sin(pooling(x * x))))(images)

  np.testing.assert_allclose(
    gradient(torsos.max_pool), gradient(haiku_max_pool), atol=1e-5
  )


@pytest.mark.parametrize("sizes", [(16,), (16, 8)])
def test_layer_norm_torso(sizes):
  """Against numpy; the scale of what is observed does not matter to it."""
  torso = hk.without_apply_rng(
    hk.transform(lambda x: torsos.LayerNormMLPTorso(sizes)(x))
  )
  observation = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
  params = torso.init(jax.random.PRNGKey(0), observation)
  features = torso.apply(params, observation)
  prefix = "layer_norm_mlp_torso/"
  x = observation @ params[f"{prefix}linear"]["w"]
  x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
  x = np.tanh(x)
  if len(sizes) == 2:
    x = np.maximum(x @ params[f"{prefix}mlp/~/linear_0"]["w"], 0.0)
  assert features.shape == (5, sizes[-1])
  np.testing.assert_allclose(features, x, atol=1e-3)
  np.testing.assert_allclose(
    torso.apply(params, 100.0 * observation), features, atol=1e-3
  )


def test_images_for_convolutions():
  config = helpers.small_config(torso="deep")
  with pytest.raises(ValueError, match="Set torso to 'mlp'"):
    helpers.networks(config, observation=(4,))
  config = helpers.small_config(torso="shallow")
  with pytest.raises(ValueError, match="at least 20×20"):
    helpers.networks(config, observation=(10, 5))
  config = helpers.small_config(torso="minatar")
  with pytest.raises(ValueError, match="at least 3×3"):
    helpers.networks(config, observation=(10, 2))
