"""The learner with Acme's interface."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from acme import core
from acme.utils import counting

from acme_stac.training.learner import Learner
from acme_stac.training.prefetch import Prefetch, Source
from acme_stac.training.waiting import WaitWarning

_POLL_SECONDS = 0.001


class STACLearner(Learner, core.Learner):
  """A `training.Learner` for Acme that counts its steps."""

  def __init__(
    self,
    *args: Any,
    write_row: Callable[[dict[str, Any]], Any] = lambda row: None,
    counter: counting.Counter | None = None,
    **kwargs: Any,
  ):
    """Makes a learner.

    Args:
      *args: arguments of `Learner`.
      write_row: called with each row of metrics and counts.
      counter: incremented by every step.
      **kwargs: arguments of `Learner`.
    """
    self._counter = counter or counting.Counter()
    super().__init__(
      *args,
      write_row=lambda row: write_row({**self._counter.get_counts(), **row}),
      prefetch=prefetch,
      **kwargs,
    )

  def step(self):
    """Consumes a batch.

    Raises:
      StopIteration: if there are no more batches.
    """
    started = time.monotonic()
    super().step()
    self._counter.increment(
      steps=1,
      environment_steps=self._config.steps_per_update,
      walltime=time.monotonic() - started,
    )


@runtime_checkable
class PrefetchingIterator(Protocol):
  """`acme.core.PrefetchingIterator`, which only Acme's development head has.

  Acme expects every step of the learner to take one element.
  """

  def ready(self) -> bool:
    """Returns whether an element is available."""

  def retrieved_elements(self) -> int:
    """Returns how many elements have been taken."""

  def __next__(self) -> Any:
    """Returns the next element."""


def prefetch(
  iterator: Iterator[Any],
  transform: Callable[[Any], Any],
  should_stop: Callable[[], bool],
) -> Source:
  """Returns a `Prefetch`, unless the iterator is Acme's own prefetching one."""
  if isinstance(iterator, PrefetchingIterator):
    return _Prefetched(iterator, transform, should_stop)
  return Prefetch(iterator, transform, should_stop)


class _Prefetched(Iterator[Any]):
  """Transforms elements of Acme's iterator as they are taken.

  Iteration ends early if `should_stop()` becomes true while waiting.
  """

  def __init__(
    self,
    iterator: PrefetchingIterator,
    transform: Callable[[Any], Any],
    should_stop: Callable[[], bool],
  ):
    self._source = iterator
    self._transform = transform
    self._should_stop = should_stop

  @property
  def ready(self) -> bool:
    """Whether an element is available."""
    return self._source.ready()

  def __next__(self) -> Any:
    warning = WaitWarning("data")
    while not self.ready:
      if self._should_stop():
        raise StopIteration
      warning.check()
      time.sleep(_POLL_SECONDS)
    return self._transform(next(self._source))
