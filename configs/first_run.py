"""The run of `make train`: STACX on CartPole-v1 from a wrong start.

Every self-tuned hyperparameter starts at 0.9 of its outer value, so the acting
head begins with a horizon of 10 steps instead of 100. The step size of the
metaparameters is ten times the papers', whose runs have a hundred times as many
updates. configs/small.py:gymnasium:CartPole-v1 has the papers' start.
"""

import ml_collections

from configs import small


def get_config() -> ml_collections.ConfigDict:
  """Returns configs/small.py on CartPole-v1, with another start of η."""
  config = small.get_config("gymnasium:CartPole-v1")
  config.stac.metaparameter_init = 2.2  # σ(2.2) = 0.9
  config.stac.meta_learning_rate = 0.01
  return config
