"""The mathematics of STAC and STACX, in pure JAX.

Imports nothing but JAX, Haiku, optax, rlax and what they bring, so that it
works in an image without TensorFlow, Reverb, Launchpad or Acme.
"""

from acme_stac.core.behaviour import acting_output
from acme_stac.core.distributions import (
  Categorical,
  Distribution,
  SquashedGaussian,
)
from acme_stac.core.losses import LossTerms, kl_loss, loss
from acme_stac.core.metaparams import (
  Hyperparameters,
  conditioning,
  constrain,
  fixed_hyperparameters,
  init_metaparams,
  outer_hyperparameters,
  squash,
)
from acme_stac.core.types import NetworkOutput, Trajectory
from acme_stac.core.update import (
  DataParallel,
  TrainingState,
  Update,
  check_output,
  data_parallel,
  learning_rate,
  make_update,
)
from acme_stac.core.vtrace import LeakyVTraceOutput, leaky_vtrace, leaky_weights
