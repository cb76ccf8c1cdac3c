"""MuJoCo Playground's control tasks: --config=configs/playground.py:<task>.

The values of Table 3, as configs/control.py; physics are on the accelerator, 24
environments to a batch of 24 x 40 steps, of which 30 overlap. Needs playground.
"""

import ml_collections

from configs import control


def get_config(task: str = "CheetahRun") -> ml_collections.ConfigDict:
  """Returns a run of a task of the suite, for example "WalkerWalk"."""
  return control.make_config("control_features", f"playground:{task}")
