"""DM control from pixels: --config=configs/control_pixels.py:<domain>/<task>.

The values of Tables 2 and 3: 30 million steps, residual torso and LSTM. For a
laptop there is configs/small.py:control_pixels:<domain>/<task>.
"""

import ml_collections

from programs.run import experiment


def get_config(task: str = "cartpole/swingup") -> ml_collections.ConfigDict:
  """Returns a run of a task of the suite, for example "walker/walk"."""
  config = experiment.base_config("control_pixels", f"control_pixels:{task}")
  config.num_environment_steps = 30_000_000
  config.evaluation.every_steps = 500_000
  config.evaluation.episodes = 10
  return config
