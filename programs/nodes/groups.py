"""Groups of an actor's environments that take turns to step."""

import collections
from collections.abc import Callable, Sequence

from acme_stac.environment_loop import BatchedEnvironmentLoop, Episode
from acme_stac.environments import EnvironmentFailedError
from acme_stac.training.actor import Actor
from acme_stac.training.adder import NonFiniteError, TrajectoryAdder
from programs.nodes.environments import Environments


class Group:
  """Environments that step together, with the actor that acts in them.

  Environments that fail are made again and start their trajectories over.

  Attributes:
    loop: the loop that steps the environments.
    episodes: episodes that have ended since the trajectories began.
  """

  def __init__(
    self,
    environments: Environments,
    actor: Actor,
    adder: TrajectoryAdder,
    fetches: bool,
  ):
    """Makes the environments.

    Args:
      environments: makes the environments.
      actor: acts in them.
      adder: the actor's adder.
      fetches: whether this actor requests parameters; of the actors that share
        a client, only one does.
    """
    self._environments = environments
    self._environment = environments.make()
    self._actor = actor
    self._adder = adder
    self.loop = BatchedEnvironmentLoop(self._environment, actor, fetches)
    self.episodes: list[Episode] = []

  @property
  def is_inferred(self) -> bool:
    """Whether `act` would return without waiting."""
    return self._actor.is_ready

  @property
  def completes(self) -> bool:
    """Whether the next time step completes the trajectories."""
    return self._adder.steps_to_write == 1

  @property
  def seconds(self) -> dict[str, float]:
    """Seconds spent so far, by part; "blocked" is included in "writing"."""
    return {**self.loop.seconds, "blocked": self._adder.seconds_blocked}

  @property
  def failures(self) -> int:
    """How often the environments have failed so far."""
    return self._environments.failures

  def infer(self, wait_for_variables: bool):
    """Starts inference."""
    while True:
      try:
        self.loop.infer(wait_for_variables)
        return
      except EnvironmentFailedError as error:  # From a reset.
        self._replace(error)

  def act(self) -> bool:
    """Waits for inference and starts a step; returns False after a failure."""
    return self._survives(self.loop.act)

  def receive(self) -> bool:
    """Waits for the time step; returns False after a failure."""
    return self._survives(self.loop.receive)

  def record(self) -> bool:
    """Writes the time step; returns False if it is not finite."""
    try:
      self.episodes += self.loop.record()
    except NonFiniteError as error:
      self._replace(self._environment.failure(str(error)))
      return False
    return True

  def _survives(self, call: Callable[[], None]) -> bool:
    try:
      call()
    except EnvironmentFailedError as error:
      self._replace(error)
      return False
    return True

  def _replace(self, error: Exception):
    self._environments.record_failure(self._environment, error)
    self._environment = self._environments.make()
    self.loop.replace_environment(self._environment)

  def close(self):
    """Frees the environments."""
    self._environment.close()


def make_trajectories(
  groups: Sequence[Group],
  wait_for_variables: bool,
  should_stop: Callable[[], bool],
) -> bool:
  """Makes the next trajectories of every group.

  One group's environments step while inference runs for the others, and
  trajectories are written while both go on. No group starts on its following
  trajectories, which may need newer parameters.

  Args:
    groups: the groups of one actor.
    wait_for_variables: wait for parameters whenever a fetch is due.
    should_stop: whether to give up.

  Returns:
    Whether all were made.

  Raises:
    HopelessError: if environments failed too often.
  """
  inferring: collections.deque[Group] = collections.deque()

  def infer(group: Group):
    group.infer(wait_for_variables)
    inferring.append(group)

  def act_in_next() -> Group | None:
    if not inferring:
      return None
    group = inferring.popleft()
    while not group.act():
      group.infer(wait_for_variables)
    return group

  for group in groups:
    group.episodes = []
    infer(group)
  stepping = act_in_next()
  while stepping is not None:
    if should_stop():
      return False
    group, completes = stepping, stepping.completes
    received = group.receive()
    stepping = None
    # Start the next environments first, if their actions are ready.
    if inferring and inferring[0].is_inferred:
      stepping = act_in_next()
    if not received or not completes:
      infer(group)
    # A group's time step must be written before the group acts again.
    if stepping is None and inferring and inferring[0] is not group:
      stepping = act_in_next()
    if received and not group.record():
      infer(group)
    stepping = stepping or act_in_next()
  return True
