"""Real-World RL: --config=configs/rwrl.py:<domain>/<task>/<level>.

The values of Table 3 for control: 30 million steps, MLP and LSTM. Levels are
none, easy, medium and hard; --config.environment_options.FIELD=VALUE changes a
single challenge (a field of acme_stac.environments.rwrl.Challenges).
"""

import ml_collections

from configs import control


def get_config(
  name: str = "cartpole/swingup/easy",
) -> ml_collections.ConfigDict:
  """Returns a run of a task of the suite, for example "walker/walk/hard"."""
  return control.make_config("control_features", f"rwrl:{name}")
