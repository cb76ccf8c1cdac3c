"""Random data and small networks that several tests use."""

import contextlib

import dm_env
import jax
import numpy as np
from dm_env import specs

import acme_stac
from acme_stac import core
from acme_stac.environments import EnvironmentSpec

NUM_ACTIONS = 3
# The conditioning of networks that embed no metaparameter.
NOTHING_EMBEDDED = np.zeros((1, 0), np.float32)
CONTINUOUS = specs.BoundedArray((2,), np.float64, [-3.0, 0.0], [1.0, 0.5])


@contextlib.contextmanager
def float64():
  """Has JAX compute in float64, by what every version of it has."""
  before = jax.config.jax_enable_x64
  jax.config.update("jax_enable_x64", True)
  try:
    yield
  finally:
    jax.config.update("jax_enable_x64", before)


def environment_spec(observation=(4,), dtype=np.float32, actions=NUM_ACTIONS):
  return EnvironmentSpec(
    observations=specs.Array(observation, dtype),
    actions=(
      actions
      if isinstance(actions, specs.Array)
      else specs.DiscreteArray(actions)
    ),
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
  )


def small_config(agent="stacx", **overrides):
  return acme_stac.make_config(
    agent,
    "small",
    **{
      "torso_sizes": (8,),
      "head_sizes": (8,),
      # Heads that differ from the start show more.
      "head_output_scale": 1.0,
      "embedding_size": 4,
      "max_abs_reward": None,
      "max_gradient_norm": None,
      "batch_size": 4,
      "trajectory_length": 5,
      "num_environment_steps": 2000,
      **overrides,
    },
  )


def trajectory(
  config,
  seed=0,
  observation=(4,),
  episode_ends=True,
  dtype=np.float32,
  continuous=False,
):
  """Returns a random trajectory whose masked rows hold ordinary numbers."""
  rng = np.random.default_rng(seed)
  shape = (config.trajectory_length + 1, config.batch_size)
  step_type = np.full(shape, dm_env.StepType.MID, np.int32)
  discount = np.ones(shape, dtype)
  if episode_ends:
    # Member 0: a termination; member 1: a time limit; both in the middle.
    step_type[2, :2] = dm_env.StepType.LAST
    step_type[3, :2] = dm_env.StepType.FIRST
    discount[2, 0] = 0.0
  log_prob = rng.uniform(-2.0, -0.3, shape).astype(dtype)
  core_state = ()
  if config.lstm_size is not None:
    state = rng.normal(size=(2, config.batch_size, config.lstm_size))
    core_state = tuple(state.astype(dtype))
  action = rng.integers(0, NUM_ACTIONS, shape).astype(np.int32)
  if continuous:
    action = rng.uniform(-0.99, 0.99, (*shape, 2)).astype(dtype)
  return core.Trajectory(
    observation=rng.normal(size=(*shape, *observation)).astype(dtype),
    action=action,
    reward=rng.normal(size=shape).astype(dtype),
    discount=discount,
    step_type=step_type,
    behaviour_log_prob=log_prob,
    core_state=core_state,
  )


def networks(config, **kwargs):
  return acme_stac.make_networks(environment_spec(**kwargs), config)
