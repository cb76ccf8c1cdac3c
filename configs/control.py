"""DM control from features: --config=configs/control.py:<domain>/<task>.

The values of Table 3: 30 million steps, MLP and LSTM. For a laptop there is
configs/small.py:control:<domain>/<task>.
"""

import ml_collections

from programs.run import experiment


def get_config(task: str = "cartpole/swingup") -> ml_collections.ConfigDict:
  """Returns a run of a task of the suite, for example "walker/walk"."""
  return make_config("control_features", f"control:{task}")


def make_config(domain: str, environment: str) -> ml_collections.ConfigDict:
  """Returns a run with the papers' budget for control."""
  config = experiment.base_config(domain, environment)
  config.num_environment_steps = 30_000_000
  config.evaluation.every_steps = 500_000
  config.evaluation.episodes = 10
  return config
