"""Real-World RL: --config=configs/rwrl.py:<domain>/<task>/<level>.

The values of Table 3 for control: 30 million steps, MLP and LSTM. Levels are
none, easy, medium and hard; --config.environment_options.FIELD=VALUE changes a
single challenge (fields of acme_stac.environments.rwrl.Challenges).
"""

import ml_collections

from programs.run import experiment


def get_config(
  name: str = "cartpole/swingup/easy",
) -> ml_collections.ConfigDict:
  """Returns a run of a task of the suite, for example "walker/walk/hard"."""
  config = experiment.base_config("control_features", f"rwrl:{name}")
  config.num_environment_steps = 30_000_000
  config.evaluation.every_steps = 500_000
  config.evaluation.episodes = 10
  return config
