import csv
import dataclasses
import json
import pathlib

import numpy as np
import pytest

import acme_stac

DATA = pathlib.Path(__file__).parent / "data"
TABLES = DATA / "tables_2_and_3.csv"
# Per agent the fields in which it differs from STRUCTURE and Table 3.
AGENTS = DATA / "agents.json"
STRUCTURE = {
  "behaviour": "head_0",
  "embedded": [],
  "embedding_per_head": False,
  "outer_loss": "actor_critic",
  "outer_batch": "same",
  "outer_critic": False,
  "bootstrap_steps": 1,
  "bootstrap_value_cost": 0.0,
  "metaparameter_range": "sigmoid",
}


@pytest.mark.parametrize("agent", acme_stac.AGENTS)
@pytest.mark.parametrize(
  "domain", ["atari", "control_features", "control_pixels"]
)
def test_presets_equal_the_tables(agent, domain):
  """Tables 2 and 3 field by field, and what makes each agent another one."""
  with open(TABLES, newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 29
  expected = {row["field"]: json.loads(row[domain]) for row in rows}
  expected.update(STRUCTURE, max_abs_reward=1.0 if domain == "atari" else None)
  expected.update(json.loads(AGENTS.read_text())[agent])
  config = dataclasses.asdict(acme_stac.make_config(agent, domain))
  for name, value in expected.items():
    if isinstance(value, list):
      value = tuple(value)
    assert config[name] == value, name
  # The papers say nothing of these.
  assert config.keys() - expected.keys() <= {
    "action_repeat", "compute_dtype", "embedding_size", "head_output_scale",
    "image_channels", "log_sigma_max", "log_sigma_min", "queue_batches",
    "reward_scale", "variable_update_period",
  }


def test_every_agent_is_in_the_table():
  assert json.loads(AGENTS.read_text()).keys() == acme_stac.AGENTS.keys()


def test_a2c_is_the_replications_table():
  """Table 1 and section 3 of the replication."""
  config = acme_stac.make_config("a2c_meta_gamma", "small")
  assert config.optimizer == "adam"
  assert config.learning_rate == config.final_learning_rate == 0.01
  # Clipped at 0.5 as a mean over 30 steps; losses are sums here.
  assert config.max_gradient_norm == 0.5 * config.trajectory_length
  assert config.trajectory_length == 30
  assert config.batch_size == 1
  assert config.outer_batch == "separate"
  assert config.metaparameter_init == config.discount == 0.99
  # And the metagradient of such a mean.
  assert config.meta_optimizer == "sgd"
  assert config.meta_learning_rate == 1e-4 / config.trajectory_length
  assert config.self_tuned == ("discount",)
  assert (config.torso_sizes, config.head_sizes) == ((), (40, 40))


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
  split = acme_stac.make_config("stacx_split_alpha").self_tuned
  assert {"alpha_rho", "alpha_c"} < set(split) and "alpha" not in split
  truncation = acme_stac.make_config("stacx_truncation").self_tuned
  assert {"alpha", "clip_threshold"} < set(truncation)
  for agent in ("stacx_random_ensemble", "stacx_average_ensemble"):
    assert acme_stac.make_config(agent).self_tuned == stacx.self_tuned
  for number in (2, 5, 8):
    assert acme_stac.make_config("stacx", num_heads=number).num_heads == number
  assert acme_stac.make_config("gamma_embedding").num_heads == 1
  assert acme_stac.make_config("stacx_gamma_embedding").embedded == (
    "discount",
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
    ("batch_size", 0, "batch_size must be a whole number of at least 1 and at"
     " most 1048576, got 0"),
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
    ("behaviour", "head0", "Did you mean 'head_0'"),
    ("outer_batch", "nxt", "Did you mean 'next'"),
    ("optimizer", "sgd", "Known: adam, rmsprop"),
    ("outer_critic", 1, "True or False"),
    ("bootstrap_steps", 2, "only outer_loss 'bootstrap' has a target"),
    ("bootstrap_value_cost", 0.5, "only outer_loss 'bootstrap' has a target"),
    ("embedded", ("alpha_c",), "not self-tuned"),
    ("embedded", ("discount", "discount"), "twice"),
    ("embedding_per_head", 1, "True or False"),
    ("log_sigma_min", 0.5, "smaller than log_sigma_max"),
    ("log_sigma_max", float("inf"), "finite"),
    ("head_sizes", (0,), "element of head_sizes"),
    ("head_sizes", 256, "head_sizes must be a tuple"),
    ("torso_sizes", (0,), "torso_sizes"),
    ("torso_sizes", "mlp", "tuple"),
    ("self_tuned", ("discont",), "Did you mean 'discount'"),
    ("self_tuned", ("alpha", "alpha_c"), "Choose one"),
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
  known = "Known: atari, control_features, control_pixels, minatar, small"
  with pytest.raises(ValueError, match=known):
    acme_stac.make_config("stacx", "doom")


def test_a_clipped_metaparameter_starts_in_its_range():
  with pytest.raises(ValueError, match=r"\[0, 1\], got 4.6"):
    acme_stac.make_config("stacx", "small", metaparameter_range="clip")
  for torso in ("deep", "layer_norm_mlp"):
    with pytest.raises(ValueError, match="at least one torso size"):
      acme_stac.make_config("stacx", "atari", torso=torso, torso_sizes=())


def test_numpy_scalars_are_numbers():
  config = acme_stac.make_config(
    "stac", num_heads=np.int64(2), discount=np.float64(0.9)
  )
  assert (config.num_heads, config.discount) == (2, 0.9)
  assert type(config.num_heads) is int
