import jax
import numpy as np
import pytest

from acme_stac import core
from acme_stac.config import METAPARAMETER_NAMES
from tests.support import helpers


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_constrain_squashes_and_scales():
  config = helpers.small_config("stacx", value_cost=0.3, entropy_cost=0.02)
  eta = core.init_metaparams(config)
  assert set(eta) == set(config.self_tuned)
  eta = {k: np.array([-1.0, 0.5, 2.0]) + i for i, (k, _) in
         enumerate(sorted(eta.items()))}
  zeta = core.constrain(eta, config)
  for name, scale in (("discount", 1), ("lambda_", 1), ("value_cost", 0.3),
                      ("policy_cost", 1), ("entropy_cost", 0.02)):
    np.testing.assert_allclose(
      getattr(zeta, name), scale * sigmoid(eta[name]), rtol=1e-5
    )
  for name in ("alpha_rho", "alpha_c"):
    np.testing.assert_allclose(
      getattr(zeta, name), sigmoid(eta["alpha"]), rtol=1e-5
    )


def test_every_metaparameter_of_the_configuration_is_in_the_table():
  assert tuple(core.METAPARAMETERS) == METAPARAMETER_NAMES


def test_initial_value():
  config = helpers.small_config("stac")
  for value in core.squash(core.init_metaparams(config), config).values():
    np.testing.assert_allclose(value, [0.99], atol=1e-3)


@pytest.mark.parametrize("name", METAPARAMETER_NAMES)
def test_any_one_name_can_be_tuned_alone(name):
  config = helpers.small_config("stacx", self_tuned=(name,))
  zeta = core.constrain(core.init_metaparams(config), config)
  outer = core.outer_hyperparameters(config)
  for field, value in zeta._asdict().items():
    tuned = field in {
      "alpha": ("alpha_rho", "alpha_c"),
      "clip_threshold": ("clip_rho_threshold", "clip_c_threshold"),
    }.get(name, (name,))
    exact = bool(np.all(np.asarray(value) == np.float32(getattr(outer, field))))
    # What is not self-tuned is exactly at its outer value.
    assert exact != tuned
    assert value.shape == (3,)


def test_gradient_reaches_only_its_head():
  config = helpers.small_config("stacx")
  eta = core.init_metaparams(config)
  gradient = jax.grad(lambda e: core.constrain(e, config).discount[1])(eta)
  assert [bool(g) for g in gradient["discount"]] == [False, True, False]


def test_policy_gradient_outer_loss_leaves_the_inner_loss_alone():
  config = helpers.small_config("metagradient_impala", kl_cost=0.5)
  fixed = core.fixed_hyperparameters(config)
  outer = core.outer_hyperparameters(config)
  assert outer == fixed._replace(value_cost=0.0, entropy_cost=0.0)
  zeta = core.constrain(core.init_metaparams(config), config)
  np.testing.assert_allclose(zeta.value_cost, [0.5])
  np.testing.assert_allclose(zeta.entropy_cost, [config.entropy_cost])


def test_clip_range_is_the_value_itself():
  config = helpers.small_config("a2c_meta_gamma", metaparameter_init=1.0)
  eta = core.init_metaparams(config)
  np.testing.assert_array_equal(core.constrain(eta, config).discount, [1.0])
  gradient = jax.grad(lambda e: core.constrain(e, config).discount[0])(eta)
  np.testing.assert_array_equal(gradient["discount"], [1.0])


def test_double_range_lets_only_loss_weights_rise():
  config = helpers.small_config(
    "stacx_truncation", metaparameter_range="double", entropy_cost=0.02
  )
  eta = core.init_metaparams(config)
  start, outer = core.constrain(eta, config), core.outer_hyperparameters(config)
  raised = {name: value + 1.0 for name, value in eta.items()}
  zeta, factors = core.constrain(raised, config), core.squash(raised, config)
  for name in ("value_cost", "policy_cost", "entropy_cost"):
    np.testing.assert_allclose(getattr(start, name), getattr(outer, name))
    np.testing.assert_allclose(factors[name], 2 * sigmoid(1.0), rtol=1e-6)
    np.testing.assert_allclose(
      getattr(zeta, name), factors[name] * getattr(outer, name)
    )
  for name in ("discount", "lambda_", "alpha", "clip_threshold"):
    np.testing.assert_allclose(eta[name], 4.6)
    np.testing.assert_allclose(factors[name], sigmoid(5.6), rtol=1e-6)
  np.testing.assert_allclose(zeta.clip_c_threshold, sigmoid(5.6), rtol=1e-6)


def test_conditioning_carries_no_gradient():
  config = helpers.small_config(
    "stacx_gamma_embedding", embedded=("lambda_", "discount")
  )
  eta = core.init_metaparams(config)
  eta["discount"] = np.array([-1.0, 0.0, 1.0])
  values = core.conditioning(eta, config)
  np.testing.assert_allclose(values[:, 1], sigmoid(eta["discount"]), rtol=1e-5)
  np.testing.assert_allclose(values[:, 0], sigmoid(4.6), rtol=1e-5)
  gradient = jax.grad(lambda e: core.conditioning(e, config).sum())(eta)
  assert not any(np.any(g) for g in gradient.values())
  nothing = core.conditioning(eta, helpers.small_config("stacx"))
  assert nothing.shape == (3, 0)
