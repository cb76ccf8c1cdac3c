import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import acme_stac
from acme_stac import core
from tests.support import helpers


@pytest.fixture(scope="module")
def results():
  """A small update in each type: its program, states and metrics."""
  found = {}
  for dtype in ("float32", "bfloat16"):
    config = helpers.small_config(
      "stac", compute_dtype=dtype, lstm_size=8, batch_size=2,
      trajectory_length=3,
    )
    networks = helpers.networks(config)
    update = core.make_update(networks, config)
    before = update.init(jax.random.PRNGKey(0))
    data = helpers.trajectory(config)
    lowered = jax.jit(update.update).lower(before, data)
    after, metrics = lowered.compile()(before, data)
    found[dtype] = lowered.as_text(), before, after, metrics
  return found


def test_parameters_and_states_are_the_same_in_either_type(results):
  (program, before, after, _), (half_program, half_before, half_after, _) = (
    results.values()
  )
  assert "bf16" in half_program
  assert "bf16" not in program
  jax.tree_util.tree_map(
    np.testing.assert_array_equal, before, half_before
  )
  types = jax.tree_util.tree_map(jnp.result_type, after)
  assert types == jax.tree_util.tree_map(jnp.result_type, half_after)
  assert jnp.bfloat16 not in jax.tree_util.tree_leaves(types)


def test_an_update_in_bfloat16_is_close_to_that_in_float32(results):
  (_, before, after, metrics), (_, _, half_after, half) = results.values()
  for name in ("policy_loss", "value_loss", "entropy_loss", "outer_loss"):
    np.testing.assert_allclose(
      half[name], metrics[name], rtol=0.03, atol=0.03, err_msg=name
    )

  def step(state):
    flat, _ = jax.flatten_util.ravel_pytree(
      jax.tree_util.tree_map(jnp.subtract, state.params, before.params)
    )
    return flat

  one, other = step(after), step(half_after)
  cosine = jnp.vdot(one, other) / jnp.linalg.norm(one) / jnp.linalg.norm(other)
  assert cosine > 0.99


@pytest.mark.parametrize("torso", ["layer_norm_mlp", "deep"])
def test_outputs_in_bfloat16_are_float32_and_close(torso):
  observation = (6,) if torso == "layer_norm_mlp" else (36, 36, 1)
  outputs = []
  for dtype in ("float32", "bfloat16"):
    config = helpers.small_config(
      "impala", compute_dtype=dtype, torso=torso, lstm_size=8
    )
    networks = acme_stac.make_networks(
      helpers.environment_spec(observation), config
    )
    data = helpers.trajectory(config, observation=observation)
    params = networks.init(jax.random.PRNGKey(0))
    lowered = jax.jit(networks.step).lower(
      params, data.observation[0], data.core_state, data.step_type[0],
      helpers.NOTHING_EMBEDDED,
    )
    name = {"float32": "xf32>", "bfloat16": "xbf16>"}[dtype]
    assert all(
      name in line for line in lowered.as_text().splitlines()
      if "stablehlo.convolution" in line
    )
    outputs.append(lowered.compile()(
      params, data.observation[0], data.core_state, data.step_type[0],
      helpers.NOTHING_EMBEDDED,
    ))
  for one, other in zip(*map(jax.tree_util.tree_leaves, outputs), strict=True):
    assert one.dtype == other.dtype == jnp.float32
    np.testing.assert_allclose(other, one, rtol=0.05, atol=0.05)


def test_bfloat16_is_that_of_jax_where_tensorflow_has_its_own():
  pytest.importorskip("tensorflow")
  config = helpers.small_config("stac", compute_dtype="bfloat16")
  networks = helpers.networks(config)
  jax.eval_shape(networks.init, jax.random.PRNGKey(0))
