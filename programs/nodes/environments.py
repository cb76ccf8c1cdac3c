"""Makes a node's environments, guarded, and replaces them when they fail."""

import faulthandler
import logging
import os
import sys
from collections.abc import Callable

from acme_stac import environments
from programs.nodes.failures import FailureLimit, HopelessError
from programs.run.experiment import Experiment

# (failures, seconds): a node gives up after more failures in this time.
_FAILURES = (5, 600.0)
# Exit code of a process whose environment hangs; a new process may be luckier.
EXIT_HUNG = 75


class Environments:
  """Makes batches of environments for a node, and limits their failures.

  Attributes:
    failures: how often environments have failed so far.
  """

  def __init__(
    self,
    experiment: Experiment,
    num_environments: int,
    seed: Callable[[int], int],
  ):
    """Prepares to make environments; makes none yet.

    Args:
      experiment: the run.
      num_environments: environments in a batch.
      seed: returns the seed of the n-th batch.
    """
    self._experiment = experiment
    self._num_environments = num_environments
    self._seed = seed
    self._number = 0
    self._limit = FailureLimit(*_FAILURES)
    self.failures = 0

  def make(self) -> environments.GuardedEnvironment:
    """Makes the next batch.

    Raises:
      EnvironmentFailedError: if the environment tries to end the program.
    """
    seed = self._seed(self._number)
    self._number += 1
    try:
      environment = self._experiment.make_environment(
        self._num_environments, seed
      )
    except (SystemExit, KeyboardInterrupt) as error:
      raise environments.EnvironmentFailedError(
        f"The environment raised {type(error).__name__}: {error}, while it was"
        " made."
      ) from error
    return environments.GuardedEnvironment(
      environment,
      self._experiment.environment_timeout_seconds,
      _end_hung_process,
    )

  def record_failure(
    self, environment: environments.GuardedEnvironment, error: Exception
  ):
    """Closes a batch that failed and counts the failure.

    Raises:
      HopelessError: if there were too many failures.
    """
    self.failures += 1
    environment.close()
    if not self._limit.add():
      raise HopelessError(
        f"The environment failed {self._limit.count} times within"
        f" {self._limit.seconds:.0f} s. The last time: {error}"
      ) from error
    logging.warning("Making new environments. %s", error)


def _end_hung_process(description: str):
  """Ends this process, since nothing else ends a call that hangs."""
  print(f"{description}\nIts threads were at:", file=sys.stderr, flush=True)
  faulthandler.dump_traceback(sys.stderr)
  sys.stderr.flush()
  os._exit(EXIT_HUNG)
