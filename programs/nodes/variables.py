"""The variable server, which passes parameters from the learner to actors."""

import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

from acme_stac.training.variables import ACTOR_VARIABLES, VariableSource
from programs.nodes.failures import NotReadyError

# How long a call waits for a learner that is still starting.
_TIMEOUT_SECONDS = 5.0


class VariableServer:
  """Holds the newest parameters, so that actors never ask the learner.

  The learner sends each version once, however many actors there are.
  """

  def __init__(self):
    """Makes a server without variables."""
    self._variables: dict[str, Any] = {}
    self._changed = threading.Condition()

  def put(self, pickled_variables: bytes):
    """Replaces the variables by a pickled dict of newer ones.

    They are pickled because arrays among the arguments of a courier call make
    it hang; arrays among its results do not.
    """
    variables = pickle.loads(pickled_variables)
    with self._changed:
      self._variables = variables
      self._changed.notify_all()

  def get_variables(self, names: Sequence[str]) -> list[Any] | None:
    """Returns variables by name; None if none have come after a short wait."""
    with self._changed:
      if not self._changed.wait_for(lambda: self._variables, _TIMEOUT_SECONDS):
        # None, because courier would log an exception's traceback every time.
        return None
      return [self._variables[name] for name in names]


class VariableClient:
  """Reads from a variable server."""

  def __init__(self, client: Any):
    """Wraps a courier client of `VariableServer`."""
    self._client = client

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name.

    Raises:
      NotReadyError: if the learner has not sent any yet.
    """
    variables = self._client.get_variables(names)
    if variables is None:
      raise NotReadyError("The learner has not sent parameters yet.")
    return variables


class VariableSender:
  """Sends the learner's variables to a variable server."""

  def __init__(self, send: Callable[[bytes], Any]):
    """Makes a sender; `send` calls the server's `put`."""
    self._send = send

  def __call__(self, learner: VariableSource) -> int:
    """Sends the newest variables; returns their version."""
    values = learner.get_variables(ACTOR_VARIABLES)
    variables = dict(zip(ACTOR_VARIABLES, values, strict=True))
    self._send(pickle.dumps(variables))
    return int(variables["version"])


def newest_version(learner: VariableSource) -> int:
  """Returns the version of the newest variables.

  Replaces a `VariableSender` where actors are threads of the learner's process
  and read its variables directly.
  """
  (version,) = learner.get_variables(["version"])
  return int(version)
