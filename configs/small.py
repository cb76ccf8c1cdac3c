"""Laptop-sized runs: --config=configs/small.py:<environment name>."""

import ml_collections

from programs import experiment

# What half an hour on two cores allows, by the environment's family.
_STEPS = {
  "atari": 5_000_000,
  "control": 3_000_000,
  "rwrl": 3_000_000,
}
# The domains whose actions have one component.
_ONE_COMPONENT = ("acrobot", "cartpole", "pendulum")


def get_config(
  environment: str = "gymnasium:CartPole-v1",
) -> ml_collections.ConfigDict:
  """Returns a small run of an environment by name, for example "catch"."""
  family = environment.partition(":")[0]
  config = experiment.base_config("small", environment)
  config.num_environment_steps = _STEPS.get(family, 500_000)
  config.evaluation.every_steps = config.num_environment_steps // 10
  config.evaluation.episodes = 16
  if not environment.startswith("gymnasium:CartPole"):
    # The preset counts CartPole's rewards of 1 as 0.1; other rewards count
    # as they are. 0 is no limit.
    config.stac.max_abs_reward = 0.0
  if family in ("atari", "control_pixels"):
    config.stac.torso = "shallow"
  if family == "atari":
    # RMSProp's ε of 0.1 is above the squared gradients of a game whose rewards
    # are rare yet, so that it takes tens of millions of frames to set out.
    config.stac.optimizer = "adam"
    config.stac.learning_rate = 5e-4
    config.stac.value_cost = 0.5
    config.stac.entropy_cost = 0.01
    config.stac.max_abs_reward = 1.0
    config.stac.batch_size = 16
  if family in ("control", "control_pixels", "rwrl"):
    # Rewards are small and dense, and each step of the environment is dear:
    # every one is learned from several times, as in Table 3.
    config.stac.batch_size = 24
    config.stac.trajectory_length = 40
    config.stac.trajectory_overlap = 30
    config.stac.learning_rate = 1e-3
  if family in ("control", "rwrl"):
    # Velocities of tens beside angles: without it values swing with them, and
    # those of auxiliary heads diverge.
    config.stac.torso = "layer_norm_mlp"
    config.stac.optimizer = "adam"
    # The KL that it weighs is a sum over an action's components.
    domain = environment.partition(":")[2].partition("/")[0]
    config.stac.entropy_cost = 0.03 if domain in _ONE_COMPONENT else 0.005
  if family == "control_pixels":
    # An image without a GPU takes as long as a hundred steps of the physics.
    config.environment_options.action_repeat = 4
    config.environment_options.frame_stack = 3
  if environment == "catch":
    # Table 3's weights: values of at most 1 are learned soon enough.
    config.stac.value_cost = 0.25
    config.stac.entropy_cost = 0.01
  return config
