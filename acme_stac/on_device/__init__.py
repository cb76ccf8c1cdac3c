"""Environments written in JAX, and training that is one compiled function.

Here belong environments as pure functions, adapters of libraries of such
environments, and the loop that acts, steps and updates on the accelerator
without a round trip to the host. Needs JAX alone; the adapters import their
library when a name asks for it. Writing logs and checkpoints does not belong
here: `programs.launch.on_device` does that.
"""

from acme_stac.on_device.check import check
from acme_stac.on_device.environment import Environment, restart, transition
from acme_stac.on_device.evaluation import Evaluation, make_evaluator
from acme_stac.on_device.loop import (
  HYPERPARAMETERS,
  LoopState,
  Trainer,
  make_trainer,
)
from acme_stac.on_device.registry import NAME_FORMS, is_on_device, make
from acme_stac.on_device.runs import map_runs
from acme_stac.on_device.sharding import shard_batch, shard_runs
