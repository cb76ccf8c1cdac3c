import dataclasses

import pytest

import acme_stac

# Table 3, the Atari column, and Table 2.
TABLE_3_ATARI = {
  "num_environment_steps": 200e6,
  "learning_rate": 6e-4,
  "final_learning_rate": 0,
  "rmsprop_decay": 0.99,
  "rmsprop_eps": 0.1,
  "batch_size": 32,
  "trajectory_length": 20,
  "trajectory_overlap": 0,
  "discount": 0.995,
  "lambda_": 1,
  "alpha": 1,
  "entropy_cost": 0.01,
  "value_cost": 0.25,
  "policy_cost": 1,
  "kl_cost": 1,
  "meta_learning_rate": 1e-3,
  "meta_b1": 0.9,
  "meta_b2": 0.999,
  "meta_eps": 1e-4,
  "metaparameter_init": 4.6,
  "torso": "deep",
  "torso_sizes": (16, 32, 32),
  "lstm_size": None,
  "head_sizes": (256,),
  "max_gradient_norm": None,
  "clip_rho_threshold": 1,
  "clip_c_threshold": 1,
}


@pytest.mark.parametrize("agent", acme_stac.AGENTS)
def test_presets_equal_table_3(agent):
  config = acme_stac.make_config(agent, "atari")
  for name, value in TABLE_3_ATARI.items():
    assert getattr(config, name) == value, name


def test_agents():
  heads = {n: acme_stac.make_config(n).num_heads for n in acme_stac.AGENTS}
  assert heads["impala"] == heads["stac"] == heads["stac_gamma"] == 1
  assert heads["impala_aux"] == heads["stacx"] == heads["stacx_no_alpha"] == 3
  assert acme_stac.make_config("impala_aux").self_tuned == ()
  # 18 metaparameters.
  stacx = acme_stac.make_config("stacx")
  assert len(stacx.self_tuned) * stacx.num_heads == 18
  assert acme_stac.make_config("stac_gamma_lambda").self_tuned == (
    "discount",
    "lambda_",
  )


def test_counts():
  config = acme_stac.make_config("stacx", "atari")
  assert config.steps_per_update == 32 * 20 * 4
  assert config.num_updates == 200_000_000 // 2560
  overlapping = dataclasses.replace(
    config,
    trajectory_length=40,
    trajectory_overlap=30,
    batch_size=24,
    action_repeat=1,
    num_environment_steps=1000,
  )
  assert overlapping.steps_per_update == 240
  assert overlapping.num_updates == 5


def test_immutable():
  with pytest.raises(dataclasses.FrozenInstanceError):
    acme_stac.make_config("stac").discount = 0.5


@pytest.mark.parametrize(
  "field,value,message",
  [
    ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
    ("batch_size", -4, "got -4"),
    ("trajectory_length", 2.5, "whole number"),
    ("num_heads", True, "whole number"),
    ("trajectory_overlap", 20, "smaller than trajectory_length"),
    ("discount", 1.5, r"\[0.0, 1.0\], got 1.5"),
    ("learning_rate", -1e-3, "learning_rate must be a finite number"),
    ("learning_rate", float("nan"), "finite"),
    ("rmsprop_eps", 0.0, "rmsprop_eps"),
    ("max_gradient_norm", 0.0, "max_gradient_norm"),
    ("torso", "depp", "Did you mean 'deep'"),
    ("torso_sizes", (0,), "torso_sizes"),
    ("torso_sizes", "mlp", "tuple"),
    ("self_tuned", ("discont",), "Did you mean 'discount'"),
    ("self_tuned", ("alpha", "alpha_c"), "Take one or the other"),
    ("self_tuned", ("alpha", "alpha"), "twice"),
    ("batchsize", 4, "Did you mean 'batch_size'"),
  ],
)
def test_bad_fields(field, value, message):
  with pytest.raises(ValueError, match=message):
    acme_stac.make_config("stacx", "small", **{field: value})


def test_unknown_names():
  with pytest.raises(ValueError, match="'stackx'. Did you mean 'stacx'"):
    acme_stac.make_config("stackx")
  with pytest.raises(ValueError, match="Known: atari, small"):
    acme_stac.make_config("stacx", "doom")
