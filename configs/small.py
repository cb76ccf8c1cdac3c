"""Laptop-sized runs: --config=configs/small.py:<environment name>."""

import ml_collections

from programs import experiment


def get_config(
  environment: str = "gymnasium:CartPole-v1",
) -> ml_collections.ConfigDict:
  """Returns a small run of an environment by name, for example "catch"."""
  config = experiment.base_config("small", environment)
  config.num_environment_steps = 500_000
  config.evaluation.every_steps = 50_000
  config.evaluation.episodes = 16
  # The entropy bonus is large here: what was learned shows in the mode.
  config.evaluation.greedy = True
  if environment == "catch":
    # Chosen on CartPole; Catch explores enough by itself.
    config.stac.entropy_cost = 0.01
    config.stac.max_abs_reward = 1.0
  return config
