"""The counter: grants environment steps, and knows when the run is over."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from programs.nodes.rate import MovingRate
from programs.run.experiment import Experiment

# A reservation that cannot be granted is answered after this time.
_RESERVE_TIMEOUT_SECONDS = 0.5
# While the learner starves, an item that has been under way for this long is
# given up. An actor has one such item at most.
_LATE_SECONDS = 30.0
_RETURN_WINDOW = 100
# A launcher that has asked within this time is there.
_RIVAL_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class _Item:
  """An item that an actor was granted and has not been seen to deliver.

  Attributes:
    life: the actor's process.
    number: of the item in this life.
    steps: environment steps of it.
    since: when it was granted.
  """

  life: str
  number: int
  steps: int
  since: float


@dataclasses.dataclass
class _Host:
  """A host of actors: its launcher, and when that asked last."""

  launcher: str
  last_seen: float
  told_of_end: bool = False


class RunCounter:
  """Counts, grants environment steps, and knows when the run is over.

  Actors reserve the steps of an item before they make it. So the run ends
  exactly at its budget, and actors are never far ahead of the learner.

  The counter never takes slowness for loss. An actor that asks for its next
  item has delivered the one before, and the learner reports what has reached it
  and what lies in the queues. So what was granted is under way in an actor,
  queued, received, or lost; and it is lost if the learner waits beside empty
  queues.

  A counter that was restarted takes the state of the run from the learner's
  next report.
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
      run: description of the run, for hosts to compare.
      clock: returns seconds.
    """
    self._budget = budget
    self._max_ahead = max_ahead
    self._held = held
    self._run = dict(run or {})
    self._clock = clock
    self._mutex = threading.Condition()
    self._finished = False
    # None until the learner has said where it begins.
    self._consumed: int | None = None
    self._received = 0
    self._dropped = 0
    # Steps granted so far, without those that were lost.
    self._reserved = 0
    # Whether the learner has said what lies in the queues.
    self._queues_known = False
    self._under_way: dict[int, _Item] = {}
    # What was known at the last report, if the learner starved then.
    self._starved: tuple[Any, ...] | None = None
    self._hosts: dict[str, _Host] = {}
    self._last_update = clock()
    self._rate = MovingRate(clock)
    self._returns: collections.deque[float] = collections.deque(
      maxlen=_RETURN_WINDOW
    )
    self._evaluation: float | None = None
    # Episodes of the evaluation that were cut off, and all of them.
    self._evaluation_cut_off = (0, 0)

  def describe(self) -> dict[str, Any]:
    """Returns the description of the run."""
    return self._run

  def reserve(self, actor: int, life: str, item: int, steps: int) -> str:
    """Asks for the environment steps of one more item.

    Args:
      actor: index of the actor.
      life: differs for every process that is this actor. What one was granted
        and did not deliver before the next began is lost.
      item: its number in this life. Asking again for the same one, because the
        answer was lost, takes nothing more.
      steps: of the item.

    Returns:
      "go", "wait" (ask again: the learner has to catch up) or "finished".
    """
    with self._mutex:
      before = self._under_way.get(actor)
      if before is not None and not self._finished:
        if (before.life, before.number) == (life, item):
          return "go"
        del self._under_way[actor]
        if before.life != life:
          self._reserved -= before.steps
      self._mutex.wait_for(
        lambda: self._finished or self._has_room(steps),
        _RESERVE_TIMEOUT_SECONDS,
      )
      if self._finished:
        return "finished"
      if not self._has_room(steps):
        return "wait"
      self._under_way[actor] = _Item(life, item, steps, self._clock())
      self._reserved += steps
      return "go"

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
    """Records the returns of episodes that ended.

    Returns:
      Whether the run is finished, so that an actor need not go on.
    """
    with self._mutex:
      self._returns.extend(returns)
      return self._finished

  def report_evaluation(
    self, mean_return: float, episodes: int = 0, cut_off: int = 0
  ):
    """Records the result of an evaluation.

    Args:
      mean_return: of its episodes.
      episodes: their number.
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
    """Records the progress of the learner.

    Args:
      environment_steps: consumed in the whole run.
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
      received = environment_steps if received is None else received
      if self._consumed is None:
        self._reserved = received
      else:
        # At a checkpoint it begins anew, and what is queued stays queued.
        self._reserved += min(received - self._received, 0)
      self._received = received
      self._reserved -= max(dropped - self._dropped, 0)
      self._dropped = dropped
      self._queues_known |= queued is not None
      # Actors make no more than was granted, so what has arrived is not lost.
      self._reserved = max(self._reserved, received + (queued or 0))
      if environment_steps != self._consumed:
        if self._consumed is not None:
          self._rate.add(environment_steps)
        self._last_update = self._clock()
        self._consumed = environment_steps
      self._grant_lost_steps_again(starving)
      self._mutex.notify_all()
      return self._mean_return()

  def _grant_lost_steps_again(self, starving: bool):
    """Frees what is neither under way nor has reached a starving learner."""
    # What was delivered while the learner looked would seem lost, so nothing
    # may have changed between two reports.
    known = (self._received, self._reserved, dict(self._under_way))
    settled = starving and known == self._starved
    self._starved = known if starving else None
    if not settled:
      return
    # The actor of a late item may never come back.
    self._under_way = {
      actor: item
      for actor, item in self._under_way.items()
      if self._clock() - item.since <= _LATE_SECONDS
    }
    accounted = self._received + sum(
      item.steps for item in self._under_way.values()
    )
    self._reserved = min(self._reserved, accounted)

  def _mean_return(self) -> float | None:
    return sum(self._returns) / len(self._returns) if self._returns else None

  def finish(self):
    """Records that the learner has done its last update."""
    with self._mutex:
      self._finished = True
      self._mutex.notify_all()

  def status(
    self, host: str | None = None, launcher: str = ""
  ) -> dict[str, Any]:
    """Returns what the progress line shows, and the state of the hosts.

    `rate` is in environment steps per second over the last half minute, None
    before the second update. `hosts` has the seconds since each host of actors
    last asked, `hosts_to_tell` those that do not know yet that the run is done,
    and `rival` is whether another launcher runs as the same host.

    Args:
      host: the host that asks, if it is one of actors.
      launcher: which process of it.
    """
    with self._mutex:
      now = self._clock()
      rival = False
      if host is not None:
        there = self._hosts.get(host)
        rival = (
          there is not None
          and there.launcher != launcher
          and now - there.last_seen < _RIVAL_SECONDS
        )
        if not rival:
          self._hosts[host] = _Host(launcher, now, self._finished)
      return {
        "steps": self._consumed or 0,
        "budget": self._budget,
        "rate": self._rate.per_second(self._finished),
        "return": self._mean_return(),
        "evaluation": self._evaluation,
        "evaluation_cut_off": self._evaluation_cut_off,
        "finished": self._finished,
        "seconds_since_update": now - self._last_update,
        "hosts": {
          name: now - there.last_seen for name, there in self._hosts.items()
        },
        "hosts_to_tell": sorted(
          name for name, there in self._hosts.items() if not there.told_of_end
        ),
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
