"""The learner: the jitted update on all local devices, fed ahead of time."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from acme import core
from acme.utils import counting, loggers

from acme_stac.agent.queues import Impatience, Sample
from acme_stac.config import STACConfig
from acme_stac.core import (
  TrainingState,
  conditioning,
  data_parallel,
  make_update,
)
from acme_stac.core.types import Array, Trajectory
from acme_stac.networks import STACNetworks

# How long a wait for data lasts before a look whether to stop.
_POLL_SECONDS = 0.2
_SOURCE_POLL_SECONDS = 0.001


class STACLearner(core.Learner):
  """Consumes one batch per step; data parallel over the local devices.

  Parameters are replicated and batches sharded, so that gradients and
  metagradients are those of the whole batch, on any number of devices.
  """

  def __init__(
    self,
    networks: STACNetworks,
    config: STACConfig,
    random_key: Array,
    iterator: Iterator[Sample],
    *,
    logger: loggers.Logger | None = None,
    counter: counting.Counter | None = None,
    log_every_seconds: float = 1.0,
    extra_metrics: Callable[[], dict[str, float]] = dict,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Makes a learner.

    Args:
      networks: the agent's networks.
      config: the agent's configuration.
      random_key: initialises the parameters.
      iterator: gives batches, [T+1, B, ...] of numpy arrays; when it ends,
        `step` raises StopIteration. The next one is taken during an update
        already, unless the iterator is an `acme.core.PrefetchingIterator`.
      logger: takes metrics.
      counter: is incremented by every step.
      log_every_seconds: least time between two rows of the log.
      extra_metrics: called when a row is written, for what it adds.
      should_stop: looked at while waiting for data; `step` then raises
        StopIteration.
      devices: devices to use; all local ones by default.

    Raises:
      ValueError: if the batch cannot be split evenly over the devices.
    """
    update = make_update(networks, config)
    self._parallel = data_parallel(
      update, config, devices or jax.local_devices()
    )
    self._next: tuple[Trajectory, np.ndarray] | None = None
    self._state: TrainingState = jax.device_put(
      update.init(random_key), self._parallel.state_sharding
    )
    self._config = config
    self._step = 0
    # Acme keeps books on what is taken from its own prefetching iterators.
    prefetched = hasattr(iterator, "retrieved_elements")
    self._iterator = (_Prefetched if prefetched else Prefetch)(
      iterator, self._to_devices, should_stop
    )
    self._logger = logger
    self._counter = counter or counting.Counter()
    self._log_every_seconds = log_every_seconds
    self._extra_metrics = extra_metrics
    self._last_log = time.monotonic()
    self._steps_at_last_log = 0
    self._seconds_waiting = 0.0
    self._warned_of_skipped = False

  def _to_devices(self, sample: Sample) -> tuple[Trajectory, np.ndarray]:
    return self._parallel.put(sample.trajectory), sample.params_version

  @property
  def num_steps(self) -> int:
    """Updates so far; also the version of the parameters."""
    return self._step

  def step(self):
    """Consumes a batch.

    Raises:
      StopIteration: when there are no more.
    """
    previous = self._state
    if not self._iterator.ready:
      # While the devices compute, nobody waits for data.
      jax.block_until_ready(previous.step)
    started = time.monotonic()
    trajectories, versions = self._take()
    self._seconds_waiting += time.monotonic() - started
    state, metrics = self._parallel.update(previous, *trajectories)
    age = self._step - versions
    self._state = state
    self._step += 1
    # One update computes and one is on its way to the devices, no more.
    jax.block_until_ready(previous.step)
    self._counter.increment(
      steps=1, environment_steps=self._config.steps_per_update
    )
    now = time.monotonic()
    elapsed = now - self._last_log
    last = self._step >= self._config.num_updates
    if self._logger and (elapsed >= self._log_every_seconds or last):
      updates = self._step - self._steps_at_last_log
      metrics = jax.device_get(metrics)
      self._warn_of_skipped(int(metrics["skipped_updates"]))
      self._logger.write({
        "learner_steps": self._step,
        "environment_steps": self._step * self._config.steps_per_update,
        **flatten_metrics(metrics),
        "policy_age_mean": float(np.mean(age)),
        "policy_age_max": int(np.max(age)),
        "updates_per_second": updates / elapsed,
        "environment_steps_per_second": updates
        * self._config.steps_per_update
        / elapsed,
        "share_waiting_for_data": self._seconds_waiting / elapsed,
        **self._extra_metrics(),
      })
      self._last_log = now
      self._steps_at_last_log = self._step
      self._seconds_waiting = 0.0

  def _warn_of_skipped(self, skipped: int):
    """Logs a warning at the first skipped update; the log counts the rest."""
    if skipped and not self._warned_of_skipped:
      self._warned_of_skipped = True
      logging.warning(
        "%d of %d updates were skipped, because a loss, a gradient's norm or a"
        " new parameter was not finite. See the losses, norms and"
        " skipped_updates in the learner's log. A lower learning_rate,"
        " max_abs_reward and max_gradient_norm may help.",
        skipped, self._step,
      )

  def _take(self) -> tuple[list[Trajectory], np.ndarray]:
    """Returns the batches of an update, and the versions behind the first."""
    first, versions = self._next or next(self._iterator)
    # If this stops, the batch in hand is not lost.
    self._next = (first, versions)
    trajectories = [first]
    following = None
    if self._config.batches_to_begin == 2:
      following = next(self._iterator)
      trajectories.append(following[0])
    self._next = following if self._config.batches_ahead else None
    return trajectories, versions

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name, as numpy arrays.

    They are "policy" (parameters), "version" (learner step) and "conditioning"
    (values of the embedded metaparameters, [P, K], or None).

    Safe to call from other threads: states are never changed in place.
    """
    return jax.device_get(self.device_variables(names))

  def device_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns what `get_variables` does, where it is: on the devices.

    For actors of this process, whose devices then take parameters from the
    learner's without a way over the host.
    """
    # The state carries its own step, so that all are of the same moment.
    state = self._state
    variables = {
      "policy": lambda: state.params,
      "version": lambda: state.step,
      "conditioning": lambda: conditioning(state.metaparams, self._config),
    }
    return [variables[name]() for name in names]

  def save(self) -> TrainingState:
    """Returns the whole state as numpy arrays."""
    return jax.device_get(self._state)

  def restore(self, state: TrainingState):
    """Goes on from a state of `save`.

    Raises:
      ValueError: if it is one of another agent.
    """

    def shapes(tree: Any) -> Any:
      return jax.tree_util.tree_map(np.shape, tree)

    if shapes(state) != shapes(self._state):
      raise ValueError(
        "This state is of other networks or another agent: give the"
        " configuration that it was saved with, or another place to save to."
      )
    self._state = jax.device_put(state, self._parallel.state_sharding)
    self._step = int(state.step)
    self._steps_at_last_log = self._step


def variable_names(config: STACConfig) -> list[str]:
  """Returns the names of the learner's variables that an actor needs."""
  return ["policy", "version"] + ["conditioning"] * bool(config.embedded)


def flatten_metrics(metrics: dict[str, Any]) -> dict[str, float]:
  """Returns scalars by name; of arrays [P] one per head, `name_head0`, ..."""
  flat = {}
  for name, value in metrics.items():
    if np.ndim(value) == 0:
      flat[name] = float(value)
    else:
      flat.update(
        {f"{name}_head{i}": float(x) for i, x in enumerate(value)}
      )
  return flat


class _Prefetched(Iterator[Any]):
  """What one of Acme's prefetching iterators has, transformed when taken.

  The end comes early if `should_stop` while waiting.
  """

  def __init__(
    self,
    iterator: Any,
    transform: Callable[[Any], Any],
    should_stop: Callable[[], bool],
  ):
    self._source = iterator
    self._transform = transform
    self._should_stop = should_stop

  @property
  def ready(self) -> bool:
    """Whether there is an element."""
    return self._source.ready()

  def __next__(self) -> Any:
    patience = Impatience("data")
    while not self.ready:
      if self._should_stop():
        raise StopIteration
      patience.say()
      time.sleep(_SOURCE_POLL_SECONDS)
    return self._transform(next(self._source))


class Prefetch(Iterator[Any]):
  """Takes and transforms elements in a thread, one ahead and no more.

  What waits here grows stale, so the next element is not even taken from the
  iterator before this one is consumed.

  An error of the iterator or of `transform` is raised where the element would
  have been taken. The end comes early if `should_stop` while waiting.
  """

  def __init__(
    self,
    iterator: Iterator[Any],
    transform: Callable[[Any], Any],
    should_stop: Callable[[], bool] = lambda: False,
  ):
    """Starts the thread."""
    self._source = iterator
    self._transform = transform
    self._should_stop = should_stop
    self._elements: queue.Queue = queue.Queue()
    self._room = threading.Semaphore()
    threading.Thread(target=self._run, daemon=True, name="prefetch").start()

  def _run(self):
    try:
      self._room.acquire()
      for element in self._source:
        self._elements.put((self._transform(element), None))
        self._room.acquire()
      self._elements.put((None, StopIteration()))
    except BaseException as error:  # Raised again in the consumer.
      self._elements.put((None, error))

  @property
  def ready(self) -> bool:
    """Whether the next element, or the end, is there."""
    return not self._elements.empty()

  def __next__(self) -> Any:
    patience = Impatience("data")
    while True:
      try:
        element, error = self._elements.get(timeout=_POLL_SECONDS)
        break
      except queue.Empty:
        if self._should_stop():
          raise StopIteration from None
        patience.say()
    if error is not None:
      self._elements.put((None, error))
      raise error
    self._room.release()
    return element
