"""DM control from pixels: --config=configs/control_pixels.py:<domain>/<task>.

The values of Tables 2 and 3: 30 million steps, residual torso and LSTM. For a
laptop there is configs/small.py:control_pixels:<domain>/<task>.
"""

import ml_collections

from configs import control


def get_config(task: str = "cartpole/swingup") -> ml_collections.ConfigDict:
  """Returns a run of a task of the suite, for example "walker/walk"."""
  return control.make_config("control_pixels", f"control_pixels:{task}")
