"""Items of the trajectory queue, and batches made of them."""

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import tree

from acme_stac.config import STACConfig
from acme_stac.core.types import Trajectory


class Sample(NamedTuple):
  """An item of the queue or, concatenated, a learner's batch.

  Attributes:
    trajectory: [T+1, N, ...], of the N environments of one actor.
    params_version: learner step of the parameters that acted in the first row,
      [N] int32.
  """

  trajectory: Trajectory
  params_version: np.ndarray


def trajectory_shapes(
  stored_spec: Any, length: int, number: int
) -> Trajectory:
  """Returns the shapes and types of trajectories, without a recurrent state.

  Args:
    stored_spec: specs of one environment; see `adder.stored_spec`.
    length: transitions, T.
    number: trajectories side by side, N.

  Returns:
    Leaves of shape [T+1, N, ...].
  """

  def rows(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((length + 1, number, *shape), dtype)

  def like(spec: Any) -> jax.ShapeDtypeStruct:
    return rows(spec.shape, spec.dtype)

  return Trajectory(
    observation=jax.tree_util.tree_map(like, stored_spec.observations),
    action=like(stored_spec.actions),
    reward=rows((), np.float32),
    discount=rows((), np.float32),
    step_type=rows((), np.int32),
    behaviour_log_prob=rows((), np.float32),
  )


def not_finite(trajectory: Trajectory) -> list[str]:
  """Returns the names of the fields with NaN or infinite numbers."""
  return [
    name
    for name, field in trajectory._asdict().items()
    if not all(
      np.isfinite(leaf).all()
      for leaf in tree.flatten(field)
      if np.asarray(leaf).dtype.kind == "f"
    )
  ]


class Batches(Iterator[Sample]):
  """Iterates over batches of `batch_size` trajectories, in order of arrival.

  Batches are samples of NumPy arrays, time-major [T+1, B, ...]. Items with
  numbers that are not finite are dropped. Threads may share an instance.

  Attributes:
    num_taken: trajectories taken so far, not counting dropped ones.
    num_dropped: trajectories dropped so far.
    waiting: whether a thread is waiting for an item.
  """

  def __init__(self, items: Iterable[Sample], config: STACConfig):
    """Makes batches from items that each come from one actor."""
    self._items = iter(items)
    self._batch_size = config.batch_size
    self._lock = threading.Lock()
    self.num_taken = 0
    self.num_dropped = 0
    self.waiting = False

  def __next__(self) -> Sample:
    """Returns the next batch.

    Raises:
      ValueError: if the actors' numbers of environments do not add up to the
        batch size.
    """
    with self._lock:
      batch: list[Sample] = []
      sizes: list[int] = []
      while sum(sizes) < self._batch_size:
        batch.append(self._take_finite())
        sizes.append(len(batch[-1].params_version))
    if sum(sizes) > self._batch_size:
      raise ValueError(
        f"Items of {sizes} trajectories do not make a batch of"
        f" {self._batch_size}. The number of environments per actor must"
        " divide the batch size, or be a multiple of it."
      )
    return _concatenate(batch)

  def _take_finite(self) -> Sample:
    while True:
      self.waiting = True
      try:
        item = next(self._items)
      finally:
        self.waiting = False
      size = len(item.params_version)
      names = not_finite(item.trajectory)
      if not names:
        self.num_taken += size
        return item
      self.num_dropped += size
      logging.warning(
        "Dropped %d trajectories with NaN or infinite numbers in: %s.",
        size, ", ".join(names),
      )


def _concatenate(items: list[Sample]) -> Sample:
  if len(items) == 1:
    return items[0]
  trajectories = [item.trajectory for item in items]
  rows = tree.map_structure(
    lambda *leaves: np.concatenate(leaves, axis=1),
    *[t._replace(core_state=()) for t in trajectories],
  )
  core_state = tree.map_structure(
    lambda *leaves: np.concatenate(leaves, axis=0),
    *[t.core_state for t in trajectories],
  )
  return Sample(
    rows._replace(core_state=core_state),
    np.concatenate([item.params_version for item in items]),
  )
