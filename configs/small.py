"""Laptop-sized runs: --config=configs/small.py:<environment name>.

The agent's hyperparameters follow from the environment's kind, see
`acme_stac.presets`.
"""

import ml_collections

from programs.run import experiment

# Environment steps of half an hour on two cores, by the environment's family.
_STEPS = {
  "atari": 5_000_000,
  "control": 3_000_000,
  "rwrl": 3_000_000,
}


def get_config(
  environment: str = "gymnasium:CartPole-v1",
) -> ml_collections.ConfigDict:
  """Returns a small run of an environment by name, for example "catch"."""
  family = environment.partition(":")[0]
  config = experiment.base_config("small", environment)
  config.num_environment_steps = _STEPS.get(family, 500_000)
  config.evaluation.every_steps = config.num_environment_steps // 10
  config.evaluation.episodes = 16
  if family == "control_pixels":
    # Without a GPU, rendering takes as long as a hundred steps of the physics.
    config.environment_options.action_repeat = 4
    config.environment_options.frame_stack = 3
  return config
