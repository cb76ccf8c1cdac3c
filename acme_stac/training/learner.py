"""The learner: updates on all local devices, with prefetched batches."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from acme_stac.config import STACConfig
from acme_stac.core import (
  TrainingState,
  conditioning,
  data_parallel,
  make_update,
)
from acme_stac.core.types import Array, Trajectory
from acme_stac.environments import nests
from acme_stac.networks import STACNetworks
from acme_stac.training.adder import stored_spec
from acme_stac.training.compilation import compile_in_thread
from acme_stac.training.prefetch import Prefetch, Source
from acme_stac.training.samples import Sample, trajectory_shapes


class Learner:
  """Consumes one batch per step, data-parallel over the local devices.

  Parameters are replicated and batches are sharded: gradients and metagradients
  are those of the whole batch, on any number of devices.
  """

  def __init__(
    self,
    networks: STACNetworks,
    config: STACConfig,
    random_key: Array,
    iterator: Iterator[Sample],
    *,
    write_row: Callable[[dict[str, Any]], Any] = lambda row: None,
    log_every_seconds: float = 1.0,
    extra_metrics: Callable[[], dict[str, float]] = dict,
    should_stop: Callable[[], bool] = lambda: False,
    devices: Sequence[jax.Device] | None = None,
    shares_devices: bool = False,
    environment_spec: Any = None,
    prefetch: Callable[..., Source] = Prefetch,
  ):
    """Makes a learner.

    Args:
      networks: the agent's networks.
      config: the agent's configuration.
      random_key: initialises the parameters.
      iterator: yields batches of NumPy arrays, [T+1, B, ...]; when it ends,
        `step` raises StopIteration.
      write_row: called with each row of metrics for the log.
      log_every_seconds: minimum time between two rows.
      extra_metrics: called for every row; returns additional metrics.
      should_stop: checked while waiting for data; if True, `step` raises
        StopIteration.
      devices: devices to use; all local ones by default.
      shares_devices: whether actors infer on the same devices. No update is
        then queued ahead, so that inference waits for at most one update.
      environment_spec: specs of one environment. If given, the update is
        compiled from shapes, in a thread; the first `step` waits for it, and
        batches get the structure of the specs.
      prefetch: (iterator, transform, should_stop) -> the source of batches.

    Raises:
      ValueError: if the batch cannot be split evenly over the devices.
    """
    update = make_update(networks, config)
    self._parallel = data_parallel(
      update, config, devices or jax.local_devices()
    )
    self._config = config
    self._shares_devices = shares_devices
    init = jax.jit(update.init)
    self._compiled: futures.Future[Callable[..., Any]] = futures.Future()
    self._structure: Trajectory | None = None
    if environment_spec is None:
      self._compiled.set_result(self._parallel.update)
    else:
      # Compilation starts first: it takes longest and needs no device.
      batch = trajectory_shapes(
        stored_spec(environment_spec, config),
        config.trajectory_length,
        config.batch_size,
      )._replace(
        core_state=jax.eval_shape(
          lambda: networks.initial_state(config.batch_size)
        )
      )
      self._structure = batch
      lowered = self._parallel.update.lower(
        jax.eval_shape(init, random_key), *[batch] * config.batches_to_begin
      )
      self._compiled = compile_in_thread(lowered)
    # One program: a GPU would otherwise compile each operation by itself.
    self._state: TrainingState = jax.device_put(
      init(random_key), self._parallel.state_sharding
    )
    self._step = 0
    # A batch that was taken but that no update has begun with yet.
    self._next: tuple[Trajectory, np.ndarray] | None = None
    self._source = prefetch(iterator, self._to_devices, should_stop)
    self._write_row = write_row
    self._log_every_seconds = log_every_seconds
    self._extra_metrics = extra_metrics
    self._metrics: dict[str, Any] = {}
    self._last_log = time.monotonic()
    self._steps_at_last_log = 0
    self._seconds_waiting = 0.0
    self._warned_of_skipped = False

  def _to_devices(self, sample: Sample) -> tuple[Trajectory, np.ndarray]:
    trajectory = sample.trajectory
    if self._structure is not None:
      # Reverb returns lists as tuples, and an OrderedDict as a dict.
      trajectory = nests.select(self._structure, trajectory)
    return self._parallel.put(trajectory), sample.params_version

  def wait_until_compiled(self):
    """Waits until the update is compiled or its compilation has failed.

    After a failure, `step` raises the error.
    """
    futures.wait([self._compiled])

  @property
  def num_steps(self) -> int:
    """Number of updates so far, which is also the parameters' version."""
    return self._step

  def step(self):
    """Consumes a batch and updates.

    Raises:
      StopIteration: when there are no more batches.
    """
    update = self._compiled.result()
    previous = self._state
    if not self._source.ready:
      # Waiting for data counts from when the devices are idle.
      jax.block_until_ready(previous.step)
    started = time.monotonic()
    trajectories, versions = self._take()
    self._seconds_waiting += time.monotonic() - started
    state, metrics = update(previous, *trajectories)
    age = self._step - versions
    self._metrics = {
      **metrics,
      "policy_age_mean": np.mean(age),
      "policy_age_max": int(np.max(age)),
    }
    self._state = state
    self._step += 1
    # At most one update runs and one more is queued on the devices.
    jax.block_until_ready((state if self._shares_devices else previous).step)
    if time.monotonic() - self._last_log >= self._log_every_seconds:
      self.write_log()

  def _take(self) -> tuple[list[Trajectory], np.ndarray]:
    """Returns an update's batches and the parameter versions of the first."""
    first, versions = self._next or next(self._source)
    # Keeps this batch if the data ends before the following one.
    self._next = (first, versions)
    following = (
      [next(self._source)] if self._config.batches_to_begin == 2 else []
    )
    self._next = following[0] if self._config.batches_ahead else None
    return [first, *(batch for batch, _ in following)], versions

  def write_log(self):
    """Logs a row about the newest update, unless it is logged already."""
    updates = self._step - self._steps_at_last_log
    if updates == 0:
      return
    now = time.monotonic()
    seconds = now - self._last_log
    metrics = jax.device_get(self._metrics)
    self._warn_of_skipped(int(metrics["skipped_updates"]))
    steps = self._config.steps_per_update
    self._write_row({
      "learner_steps": self._step,
      "environment_steps": self._step * steps,
      **flatten_metrics(metrics),
      "updates_per_second": updates / seconds,
      "environment_steps_per_second": updates * steps / seconds,
      "share_waiting_for_data": self._seconds_waiting / seconds,
      **self._extra_metrics(),
    })
    self._last_log = now
    self._steps_at_last_log = self._step
    self._seconds_waiting = 0.0

  def _warn_of_skipped(self, skipped: int):
    """Logs a warning at the first skipped update; metrics count the rest."""
    if skipped and not self._warned_of_skipped:
      self._warned_of_skipped = True
      logging.warning(
        "%d of %d updates were skipped, because a loss, a gradient's norm or a"
        " new parameter was not finite. See the losses, norms and"
        " skipped_updates in the learner's log. A lower learning_rate,"
        " max_abs_reward or max_gradient_norm may help.",
        skipped, self._step,
      )

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name, as NumPy arrays.

    The names are "policy" (parameters), "version" (learner step) and
    "conditioning" (values of the K embedded metaparameters, [P, K]).

    Safe to call from other threads: states are never changed in place.
    """
    return jax.device_get(self.device_variables(names))

  def device_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name, as arrays on the learner's devices.

    Actors of this process copy them to their own devices without going through
    the host.
    """
    # The state carries its own step, so that all variables match.
    state = self._state
    variables = {
      "policy": lambda: state.params,
      "version": lambda: state.step,
      # Without embedded metaparameters it is a constant, on no device yet.
      "conditioning": lambda: jax.device_put(
        conditioning(state.metaparams, self._config),
        self._parallel.state_sharding,
      ),
    }
    return [variables[name]() for name in names]

  def save(self) -> TrainingState:
    """Returns the whole state as NumPy arrays."""
    return jax.device_get(self._state)

  def restore(self, state: TrainingState):
    """Continues from a state that `save` returned.

    Raises:
      ValueError: if the state belongs to another agent.
    """

    def shapes(tree: Any) -> Any:
      return jax.tree_util.tree_map(np.shape, tree)

    if shapes(state) != shapes(self._state):
      raise ValueError(
        "This state is of other networks or another agent: use the"
        " configuration that it was saved with, or save to another place."
      )
    self._state = jax.device_put(state, self._parallel.state_sharding)
    self._step = int(state.step)
    self._steps_at_last_log = self._step


def flatten_metrics(metrics: dict[str, Any]) -> dict[str, float]:
  """Returns scalars by name; arrays [P] become `name_head0`, ... per head."""
  flat = {}
  for name, value in metrics.items():
    if np.ndim(value) == 0:
      flat[name] = float(value)
    else:
      flat.update(
        {f"{name}_head{i}": float(x) for i, x in enumerate(value)}
      )
  return flat
