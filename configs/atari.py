"""Atari with the values of Table 3: --config=configs/atari.py:<game>."""

import ml_collections

from programs.run import experiment


def get_config(game: str = "pong") -> ml_collections.ConfigDict:
  """Returns a run of a game by the name of its ROM, for example "ms_pacman"."""
  config = experiment.base_config("atari", f"atari:{game}")
  config.num_environment_steps = 200_000_000
  config.environment_options.protocol = "papers"
  config.evaluation.every_steps = 2_000_000
  config.evaluation.episodes = 10
  return config
