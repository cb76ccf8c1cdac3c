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
  """An Acme learner, which counts its steps."""

  def __init__(
    self,
    *args: Any,
    counter: counting.Counter | None = None,
    **kwargs: Any,
  ):
    """Makes a learner.

    Args:
      *args: of `Learner`.
      counter: incremented by every step.
      **kwargs: of `Learner`.
    """
    super().__init__(*args, prefetch=prefetch, **kwargs)
    self._counter = counter or counting.Counter()

  def step(self):
    """Consumes a batch.

    Raises:
      StopIteration: when there are no more.
    """
    super().step()
    self._counter.increment(
      steps=1, environment_steps=self._config.steps_per_update
    )


@runtime_checkable
class PrefetchingIterator(Protocol):
  """`acme.core.PrefetchingIterator`, which only Acme's development head has.

  Acme counts what is taken from it: one element for every step of the learner.
  """

  def ready(self) -> bool:
    """Whether an element is there."""

  def retrieved_elements(self) -> int:
    """How many elements have been taken."""

  def __next__(self) -> Any:
    """Returns the next element."""


def prefetch(
  iterator: Iterator[Any],
  transform: Callable[[Any], Any],
  should_stop: Callable[[], bool],
) -> Source:
  """Returns `Prefetch`, or Acme's own iterator where that does the work."""
  if isinstance(iterator, PrefetchingIterator):
    return _Prefetched(iterator, transform, should_stop)
  return Prefetch(iterator, transform, should_stop)


class _Prefetched(Iterator[Any]):
  """Transforms the elements of Acme's iterator when they are taken.

  Iteration ends early if `should_stop` while waiting.
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
    """Whether an element is there."""
    return self._source.ready()

  def __next__(self) -> Any:
    warning = WaitWarning("data")
    while not self.ready:
      if self._should_stop():
        raise StopIteration
      warning.check()
      time.sleep(_POLL_SECONDS)
    return self._transform(next(self._source))
