"""The mathematics of STAC and STACX, in pure JAX.

Imports only JAX, Haiku, optax, rlax and their dependencies: neither TensorFlow,
Reverb, Launchpad nor Acme.
"""

from acme_stac.core.distributions import (
  Categorical,
  Distribution,
  SquashedGaussian,
)
from acme_stac.core.heads import acting_output
from acme_stac.core.losses import kl_loss, loss
from acme_stac.core.metaparams import (
  METAPARAMETERS,
  Hyperparameters,
  Metaparameter,
  conditioning,
  constrain,
  fixed_hyperparameters,
  init_metaparams,
  outer_hyperparameters,
  squash,
)
from acme_stac.core.optimizers import learning_rate
from acme_stac.core.parallel import DataParallel, data_parallel
from acme_stac.core.types import (
  LossTerms,
  NetworkOutput,
  Networks,
  TrainingState,
  Trajectory,
  Update,
  check_output,
)
from acme_stac.core.update import make_update
from acme_stac.core.vtrace import LeakyVTraceOutput, leaky_vtrace, leaky_weights
