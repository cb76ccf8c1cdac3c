"""The counter: grants environment steps, and knows when the run is over."""

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from acme.utils import counting

from programs.experiment import Experiment
from programs.rate import MovingRate

# A reservation that cannot be granted is answered after this time.
_RESERVE_TIMEOUT_SECONDS = 0.5
# Without an update or a grant for this long, what is under way counts as lost.
_LOST_SECONDS = 30.0
_RETURN_WINDOW = 100
# A launcher that has asked within this time is there.
_RIVAL_SECONDS = 3.0


class _Grant(NamedTuple):
  life: str
  item: int
  steps: int


class RunCounter(counting.Counter):
  """Counts, grants environment steps, and knows when the run is over.

  Actors reserve the steps of every item before they make it, so that the run
  ends at its budget and not at the next look at a clock, and so that actors are
  never far ahead of the learner.

  Everything it holds can be had again: a counter that was started anew learns
  from the learner's next report where the run is.
  """

  def __init__(
    self,
    budget: int,
    max_ahead: int,
    held: int = 0,
    run: Mapping[str, Any] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Makes a counter.

    Args:
      budget: environment steps of the whole run.
      max_ahead: environment steps that may be on their way to the learner.
      held: environment steps that the learner holds beyond those that it has
        consumed, at the end too.
      run: what the run is, for hosts to compare.
      clock: seconds.
    """
    super().__init__()
    self._budget = budget
    self._max_ahead = max_ahead
    self._held = held
    self._run = dict(run or {})
    self._clock = clock
    # None until the learner has said where it begins.
    self._consumed: int | None = None
    self._reserved = 0
    self._dropped = 0
    self._grants: dict[int, _Grant] = {}
    self._hosts: dict[str, float] = {}
    # When each launcher of a host asked first, and last.
    self._launchers: dict[tuple[str, str], tuple[float, float]] = {}
    self._told: set[str] = set()
    self._finished = False
    self._last_change = clock()
    self._last_update = clock()
    self._rate = MovingRate(clock=clock)
    self._returns: collections.deque[float] = collections.deque(
      maxlen=_RETURN_WINDOW
    )
    self._evaluation: float | None = None
    self._mutex = threading.Condition()

  def describe(self) -> dict[str, Any]:
    """Returns what the run is."""
    return self._run

  def reserve(self, actor: int, life: str, item: int, steps: int) -> str:
    """Asks for the environment steps of one more item.

    Args:
      actor: which actor.
      life: differs for every process that is this actor. What one was granted
        and did not deliver before the next began is lost.
      item: its number in this life. Asking again for the same one, because the
        answer was lost, takes nothing more.
      steps: of the item.

    Returns:
      "go", "wait" (ask again: the learner has to catch up) or "finished".
    """
    grant = _Grant(life, item, steps)
    with self._mutex:
      before = self._grants.get(actor)
      if before == grant and not self._finished:
        return "go"
      if before is not None and before.life != life:
        self._reserved -= before.steps
        del self._grants[actor]
      self._mutex.wait_for(
        lambda: self._finished or self._has_room(steps),
        _RESERVE_TIMEOUT_SECONDS,
      )
      if self._finished:
        return "finished"
      if not self._has_room(steps):
        return "wait"
      self._grants[actor] = grant
      self._reserved += steps
      self._last_change = self._clock()
      return "go"

  def _has_room(self, steps: int) -> bool:
    if self._consumed is None:
      return False
    if self._clock() - self._last_change > _LOST_SECONDS:
      # What was lost on its way, with a queue for instance, must not stop the
      # run for ever. If it was not lost the queue holds back what is too much.
      self._reserved = self._consumed
      self._grants.clear()
    limit = min(self._budget, self._consumed + self._max_ahead)
    return self._reserved + steps <= limit + self._held

  def report_episodes(self, returns: Sequence[float]):
    """Takes the returns of episodes that ended."""
    with self._mutex:
      self._returns.extend(returns)

  def report_evaluation(self, mean_return: float):
    """Takes the mean return of an evaluation."""
    with self._mutex:
      self._evaluation = mean_return

  def report_learner(
    self, environment_steps: int, dropped: int = 0
  ) -> float | None:
    """Takes where the learner is.

    Args:
      environment_steps: that it has consumed in the whole run.
      dropped: environment steps of items that it could not use, since its
        process began.

    Returns:
      The mean return of the last episodes, None if there are none yet.
    """
    with self._mutex:
      now = self._clock()
      if self._consumed is None:
        self._reserved = environment_steps
      elif environment_steps < self._consumed:
        # It began anew at its checkpoint.
        self._reserved = environment_steps
        self._grants.clear()
      if dropped > self._dropped:
        self._reserved -= dropped - self._dropped
      self._dropped = dropped
      if environment_steps != self._consumed:
        if self._consumed is not None:
          self._rate.add(environment_steps)
        self._last_change = self._last_update = now
        self._consumed = environment_steps
      self._mutex.notify_all()
      return self._mean_return()

  def _mean_return(self) -> float | None:
    return sum(self._returns) / len(self._returns) if self._returns else None

  def finish(self):
    """Says that the learner has done its last update."""
    with self._mutex:
      self._finished = True
      self._mutex.notify_all()

  def status(
    self, host: str | None = None, launcher: str = ""
  ) -> dict[str, Any]:
    """Returns what the progress line shows.

    `rate` is in environment steps per second over the last half minute, None
    before the second update, `hosts` has the seconds since each host of actors
    last asked, `hosts_to_tell` those that do not know yet that the run is done,
    and `rival` says that an older launcher is the same host.

    Args:
      host: that asks, if it is one of actors.
      launcher: which process of it.
    """
    with self._mutex:
      now = self._clock()
      rival = False
      if host is not None:
        self._hosts[host] = now
        first, _ = self._launchers.get((host, launcher), (now, now))
        self._launchers[host, launcher] = (first, now)
        rival = any(
          of == host and since < first and now - last < _RIVAL_SECONDS
          for (of, _), (since, last) in self._launchers.items()
        )
        if self._finished:
          self._told.add(host)
      steps = self._consumed or 0
      return {
        "steps": steps,
        "budget": self._budget,
        "rate": self._rate.per_second(self._finished),
        "return": self._mean_return(),
        "evaluation": self._evaluation,
        "finished": self._finished,
        "seconds_since_update": now - self._last_update,
        "hosts": {name: now - then for name, then in self._hosts.items()},
        "hosts_to_tell": sorted(self._hosts.keys() - self._told),
        "rival": rival,
      }


def make_counter(experiment: Experiment) -> RunCounter:
  """Returns the counter of a run."""
  config = experiment.config
  # Every actor can work while the learner does.
  making = experiment.num_actors * experiment.environments_per_actor
  consumed = config.batches_per_update * config.batch_size
  ahead = max(config.queue_batches * consumed, consumed + making)
  held = config.batches_ahead * config.batch_size
  return RunCounter(
    config.num_updates * config.steps_per_update,
    ahead * config.steps_per_trajectory,
    held * config.steps_per_trajectory,
    experiment.to_json(),
  )
