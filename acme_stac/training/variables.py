"""Fetches the learner's variables for an actor."""

from collections.abc import Sequence
from concurrent import futures
from typing import Any, NamedTuple, Protocol

import jax


class VariableSource(Protocol):
  """Serves variables: a learner, or a client of one."""

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name."""


class ActorVariables(NamedTuple):
  """The learner's variables that an actor needs.

  Attributes:
    policy: the networks' parameters.
    version: the learner step.
    conditioning: values of the K embedded metaparameters, [P, K].
  """

  policy: Any
  version: int
  conditioning: Any


ACTOR_VARIABLES = ActorVariables._fields


class VariableClient:
  """Fetches `ActorVariables` from a source, in a thread of its own.

  An error of the source is raised by the next call.
  """

  def __init__(
    self,
    source: VariableSource,
    device: jax.Device,
    update_period: int = 1,
  ):
    """Makes a client.

    Args:
      source: serves the variables.
      device: the device to put them on.
      update_period: calls of `update` between fetches.
    """
    self._source = source
    self._device = device
    self._update_period = update_period
    self._num_calls = 0
    self._params: ActorVariables | None = None
    # One worker, so that fetches finish in the order of their requests.
    self._executor = futures.ThreadPoolExecutor(1, "variables")
    self._fetch: futures.Future | None = None

  @property
  def params(self) -> ActorVariables:
    """The newest variables that were fetched; the first use fetches them."""
    if self._params is None:
      self.update_and_wait()
    assert self._params is not None
    return self._params

  def update(self, wait: bool = False):
    """Requests the newest variables if a fetch is due.

    Args:
      wait: wait until they arrive.
    """
    self._num_calls += 1
    if self._num_calls < self._update_period:
      return
    if wait:
      self.update_and_wait()
    elif self._fetch is None or self._fetch.done():
      self._request()

  def update_and_wait(self):
    """Fetches the newest variables now."""
    self._request().result()

  def _request(self) -> futures.Future:
    if self._fetch is not None and self._fetch.done():
      self._fetch.result()
    self._num_calls = 0
    self._fetch = self._executor.submit(self._update)
    return self._fetch

  def _update(self):
    policy, version, conditioning = self._source.get_variables(ACTOR_VARIABLES)
    self._params = ActorVariables(
      jax.device_put(policy, self._device),
      int(version),
      jax.device_put(conditioning, self._device),
    )
