"""The counter: grants environment steps, and knows when the run is over."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from programs.run.experiment import Experiment
from programs.run.rate import MovingRate

# A reservation that cannot be granted is answered after this time.
_RESERVE_TIMEOUT_SECONDS = 0.5
# While the learner starves, an item that has been under way for this long is
# given to others as well. An actor has one such item at most.
_LATE_SECONDS = 30.0
_RETURN_WINDOW = 100
# A launcher that has asked within this time is there.
_RIVAL_SECONDS = 3.0


class _Grant(NamedTuple):
  life: str
  item: int
  steps: int


@dataclasses.dataclass
class _UnderWay:
  """An item that an actor has not been seen to deliver.

  Attributes:
    grant: of the item.
    since: when it was granted.
    late: whether its steps have been given to others.
  """

  grant: _Grant
  since: float
  late: bool = False


class RunCounter:
  """Counts, grants environment steps, and knows when the run is over.

  Actors reserve the steps of every item before they make it, so that the run
  ends at its budget and not at the next look at a clock, and so that actors are
  never far ahead of the learner.

  It never takes slowness for loss. An actor that asks for its next item has
  delivered the one before, and the learner reports what has reached it and what
  lies in the queues. So what was granted is under way in an actor, queued,
  received, or lost; and it is lost if the learner waits beside empty queues.

  A counter that was started anew learns from the learner's next report where
  the run is.
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
    self._budget = budget
    self._max_ahead = max_ahead
    self._held = held
    self._run = dict(run or {})
    self._clock = clock
    # None until the learner has said where it begins.
    self._consumed: int | None = None
    # Steps granted so far, without those that were lost.
    self._reserved = 0
    self._received = 0
    self._dropped = 0
    # Whether the learner has said what lies in the queues.
    self._queues_known = False
    self._under_way: dict[int, _UnderWay] = {}
    # What was known at the last report, if the learner starved then.
    self._starved: tuple[Any, ...] | None = None
    self._hosts: dict[str, float] = {}
    # When each launcher of a host asked first, and last.
    self._launchers: dict[tuple[str, str], tuple[float, float]] = {}
    self._told: set[str] = set()
    self._finished = False
    self._last_update = clock()
    self._rate = MovingRate(clock=clock)
    self._returns: collections.deque[float] = collections.deque(
      maxlen=_RETURN_WINDOW
    )
    self._evaluation: float | None = None
    # Episodes of it that were cut off, and all of them.
    self._evaluation_cut_off = (0, 0)
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
      before = self._under_way.get(actor)
      if before is not None and before.grant == grant and not self._finished:
        return "go"
      if before is not None and before.grant != grant:
        self._settle(actor, delivered=before.grant.life == life)
      self._mutex.wait_for(
        lambda: self._finished or self._has_room(steps),
        _RESERVE_TIMEOUT_SECONDS,
      )
      if self._finished:
        return "finished"
      if not self._has_room(steps):
        return "wait"
      self._under_way[actor] = _UnderWay(grant, self._clock())
      self._reserved += steps
      return "go"

  def _settle(self, actor: int, delivered: bool):
    """Closes the account of the item that an actor had under way."""
    item = self._under_way.pop(actor)
    if delivered and item.late:
      self._reserved += item.grant.steps
    if not delivered and not item.late:
      self._reserved -= item.grant.steps

  def _has_room(self, steps: int) -> bool:
    if self._consumed is None or not self._queues_known:
      return False
    budget = self._budget + self._held
    if self._reserved >= budget:
      return False
    # The last item may have more steps than are left.
    reserved = min(self._reserved + steps, budget)
    return reserved <= self._consumed + self._max_ahead + self._held

  def report_episodes(self, returns: Sequence[float]) -> bool:
    """Takes the returns of episodes that ended.

    Returns:
      Whether the run is finished, so that an actor need not go on.
    """
    with self._mutex:
      self._returns.extend(returns)
      return self._finished

  def report_evaluation(
    self, mean_return: float, episodes: int = 0, cut_off: int = 0
  ):
    """Takes the mean return of an evaluation.

    Args:
      mean_return: of its episodes.
      episodes: how many there were.
      cut_off: how many of them reached the limit of steps.
    """
    with self._mutex:
      self._evaluation = mean_return
      self._evaluation_cut_off = (cut_off, episodes)

  def report_learner(
    self,
    environment_steps: int,
    dropped: int = 0,
    received: int | None = None,
    queued: int | None = 0,
    starving: bool = False,
  ) -> float | None:
    """Takes where the learner is.

    Args:
      environment_steps: that it has consumed in the whole run.
      dropped: environment steps of items that it could not use, since its
        process began.
      received: environment steps of all items that have reached it in the whole
        run, without those dropped; `environment_steps` unless given. Fewer than
        before say that it began anew at its checkpoint.
      queued: environment steps that lay in the queues afterwards; None if they
        were not asked or did not answer.
      starving: whether it waits for data, the queues are empty, and nothing has
        come since an earlier look.

    Returns:
      The mean return of the last episodes, None if there are none yet.
    """
    with self._mutex:
      now = self._clock()
      received = environment_steps if received is None else received
      if self._consumed is None:
        self._reserved = received
      else:
        # At a checkpoint it begins anew, and what is queued stays queued.
        self._reserved += min(received - self._received, 0)
      self._received = received
      if dropped > self._dropped:
        self._reserved -= dropped - self._dropped
      self._dropped = dropped
      self._queues_known |= queued is not None
      # Nobody makes more than was granted: what is there was not lost.
      self._reserved = max(self._reserved, received + (queued or 0))
      if environment_steps != self._consumed:
        if self._consumed is not None:
          self._rate.add(environment_steps)
        self._last_update = now
        self._consumed = environment_steps
      self._give_up_what_was_lost(starving)
      self._mutex.notify_all()
      return self._mean_return()

  def _give_up_what_was_lost(self, starving: bool):
    """Grants again what is neither under way nor has reached the learner."""
    known = (
      self._received,
      self._reserved,
      {actor: item.grant for actor, item in self._under_way.items()},
    )
    # What was delivered while the learner looked would seem lost, so nothing
    # may have changed between two reports.
    settled = starving and known == self._starved
    self._starved = known if starving else None
    if not settled:
      return
    for item in self._under_way.values():
      # Its actor may never come back.
      item.late |= self._clock() - item.since > _LATE_SECONDS
    accounted = self._received + sum(
      item.grant.steps for item in self._under_way.values() if not item.late
    )
    self._reserved = min(self._reserved, accounted)

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
        "evaluation_cut_off": self._evaluation_cut_off,
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
  # While the learner works at what an actor delivered at once.
  delivered = max(consumed, experiment.environments_per_actor)
  ahead = max(config.queue_batches * consumed, delivered + making)
  held = config.batches_ahead * config.batch_size
  return RunCounter(
    config.num_updates * config.steps_per_update,
    ahead * config.steps_per_trajectory,
    held * config.steps_per_trajectory,
    experiment.to_json(),
  )
