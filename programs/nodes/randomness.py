"""Random keys and seeds of the parts of a run."""

import enum

import jax

from programs.run.experiment import Experiment


class Part(enum.IntEnum):
  """Nodes that draw random numbers."""

  LEARNER = 0
  ACTOR = 1
  EVALUATOR = 2


def random_key(experiment: Experiment, step: int, *path: int) -> jax.Array:
  """Returns a random key of a part of the run.

  Args:
    experiment: the run; all keys derive from its seed.
    step: updates done when the part began, so that a resumed run draws new
      numbers.
    *path: the part, then further numbers that distinguish its keys.
  """
  # On the CPU, as an accelerator would compile each of these operations.
  with jax.default_device(jax.local_devices(backend="cpu")[0]):
    key = jax.random.PRNGKey(experiment.seed)
    for number in (step, *path):
      key = jax.random.fold_in(key, number)
  return key


def environment_seed(experiment: Experiment, step: int, *path: int) -> int:
  """Returns the seed of a batch of environments; see `random_key`."""
  key = random_key(experiment, step, *path)
  # Members of a batch are seeded with consecutive numbers.
  return int(jax.random.randint(key, (), 0, 2**30))
