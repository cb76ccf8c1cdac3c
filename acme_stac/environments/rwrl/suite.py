"""The Real-World RL suite: rwrl:<domain>/<task>/<level>.

Tasks of the DeepMind Control Suite in a world with delays, noisy, dropped and
stuck sensors, repeated actions, physics that change between episodes, and
observations without meaning (Dulac-Arnold et al., 2020). Rewards are the tasks'
own. Episodes last 1000 steps and end with discount 1: values bootstrap there.

By default each environment draws from a generator of its own, and the faults
of the published suite are corrected. Exact mode reproduces the published suite
number for number, with its `Faults`: all challenges draw from NumPy's global
generator, in the published order, and the seed sets only the initial states.
When you compare the two, read the published suite's observation spec last:
reading it changes the state there.
"""

import copy
import functools
import re
from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

# Comes first: imports dm-control with a renderer that works.
from acme_stac.environments import control as control_suite  # isort: skip
from dm_control.rl import control
from dm_control.suite import common
from lxml import etree

from acme_stac import checks
from acme_stac.environments import batches, wrappers
from acme_stac.environments.rwrl.challenges import (
  LEVELS,
  Challenges,
  suite_data,
)
from acme_stac.environments.rwrl.domains import DOMAINS, Constraint, Domain
from acme_stac.environments.rwrl.faults import CORRECTED, PUBLISHED, Faults
from acme_stac.environments.rwrl.schedule import Schedule
from acme_stac.environments.rwrl.wrapper import ChallengedEnvironment


@functools.cache
def _assets() -> dict[str, bytes]:
  """Returns the suite's assets with a sky of low resolution.

  Compiling a model would spend nearly all of its time on the full one.
  """
  name = "./common/skybox.xml"
  small = re.sub(rb'"800"', b'"64"', common.ASSETS[name])
  return {**common.ASSETS, name: small}


class _Task(control.Task):
  """A stock task with safety constraints and the multi-objective reward.

  Attributes:
    satisfied: which constraints hold after the last step or reset, bool [C].
    evaluates_early: whether a reset evaluates constraints too early, see
      `Faults.constraints_lag_reset`.
  """

  def __init__(
    self,
    domain: Domain,
    name: str,
    challenges: Challenges,
    random: np.random.RandomState,
    faults: Faults,
  ):
    """Makes the stock task.

    Raises:
      ValueError: for an unknown constraint, with near matches.
    """
    self._task = domain.tasks[name](random)
    self._alpha = challenges.multi_objective_alpha
    self._vectors = domain.vectors
    self.evaluates_early = faults.constraints_lag_reset
    self._max_change = domain.action_rate * challenges.safety_coefficient
    self._last_action: np.ndarray | None = None
    default = domain.constraints(name, challenges.safety_coefficient, faults)
    known = {**default, "action_rate": self._is_smooth}
    self._constraints: list[Constraint] = []
    if challenges.safety:
      for constraint in challenges.safety_constraints or default:
        if constraint not in known:
          raise ValueError(checks.unknown("constraint", constraint, known))
        self._constraints.append(known[constraint])
    self.satisfied = np.ones(len(self._constraints), bool)

  def initialize_episode(self, physics: Any):
    self._task.initialize_episode(physics)
    if self.evaluates_early:
      self.evaluate(physics)

  def before_step(self, action: np.ndarray, physics: Any):
    self._last_action = physics.control()
    self._task.before_step(action, physics)

  def after_step(self, physics: Any):
    self._task.after_step(physics)
    self.evaluate(physics)
    self._last_action = None

  def evaluate(self, physics: Any):
    """Evaluates the constraints in a state."""
    self.satisfied = np.array(
      [constraint(physics) for constraint in self._constraints], bool
    )

  def _is_smooth(self, physics: Any) -> bool:
    if self._last_action is None:
      return True
    change = np.abs(self._last_action - physics.control())
    return bool(np.all(change < self._max_change))

  def get_reward(self, physics: Any) -> float:
    reward = self._task.get_reward(physics)
    if self._alpha:
      reward = (1 - self._alpha) * reward + self._alpha * self.satisfied.mean()
    return reward

  def objectives(self, physics: Any) -> np.ndarray:
    """Returns the task's own reward and the share of constraints, [2]."""
    return np.array([self._task.get_reward(physics), self.satisfied.mean()])

  def get_observation(self, physics: Any) -> dict[str, Any]:
    observation = dict(self._task.get_observation(physics))
    for name in self._vectors:
      observation[name] = np.atleast_1d(observation[name])
    return observation

  def action_spec(self, physics: Any) -> Any:
    return self._task.action_spec(physics)

  def get_termination(self, physics: Any) -> Any:
    return self._task.get_termination(physics)


class _Plant(wrappers.Wrapper):
  """The simulation of a task, whose physics can change between episodes.

  Attributes:
    task: the simulated task.
    perturbation: current value of the perturbed parameter; None before the
      first reset, and without a perturbation.
  """

  def __init__(
    self,
    domain: str,
    name: str,
    challenges: Challenges,
    random: np.random.RandomState,
    rng: Any,
    faults: Faults,
  ):
    """Makes the nominal physics; see `load` for the arguments."""
    self._domain, self._faults = DOMAINS[domain], faults
    self.task = _Task(self._domain, name, challenges, random, faults)
    self._parameter = challenges.perturbation
    self._schedule: Schedule | None = None
    if self._parameter != "none":
      self._schedule = _schedule(domain, challenges, rng, faults)
    self._period = challenges.perturbation_period
    self._times = {
      key: suite_data()["domains"][domain][key]
      for key in ("time_limit", "control_timestep")
    }
    parser = etree.XMLParser(remove_blank_text=True)
    self._model = etree.XML(self._domain.model(name), parser)
    self._episodes = 0
    self.perturbation: float | None = None
    super().__init__(self._simulate(self._model))

  def _simulate(self, model: Any) -> control.Environment:
    physics = self._domain.physics.from_xml_string(
      etree.tostring(model), _assets()
    )
    return control.Environment(physics, self.task, **self._times)

  def _perturb(self, value: float):
    """Compiles the model with a value of the perturbed parameter."""
    self.perturbation = value
    model = copy.deepcopy(self._model)
    edits = self._domain.parameters[self._parameter](value, self._faults)
    for path, attributes in edits.items():
      for element in model.findall(path):
        element.attrib.update(attributes)
    self._environment = self._simulate(model)

  def constraints(self) -> np.ndarray:
    """Returns which constraints hold, bool [C]."""
    return self.task.satisfied.copy()

  def objectives(self) -> np.ndarray:
    """Returns the task's own reward and the share of constraints, [2]."""
    return self.task.objectives(self.physics)

  def reset(self) -> dm_env.TimeStep:
    if self._schedule and self._episodes % self._period == 0:
      value = self._schedule.next()
      if value != self.perturbation:
        self._perturb(value)
    self._episodes += 1
    step = super().reset()
    # Only now are the derived quantities of the initial state known.
    if not self.task.evaluates_early:
      self.task.evaluate(self.physics)
    return step


def load(
  domain: str,
  task: str,
  *,
  challenges: Challenges | None = None,
  seed: int | Sequence[int] | None = None,
  exact: bool = False,
) -> dm_env.Environment:
  """Returns a task of the suite with dict observations.

  The result has the attributes `physics` and `perturbation`, the current value
  of the perturbed parameter.

  Args:
    domain: "cartpole", "walker", "quadruped" or "humanoid".
    task: name of the task, for example "walk".
    challenges: what is wrong with the world, for example
      `Challenges.combined("walker", "easy")`; None for nothing.
    seed: of everything; in exact mode of the initial states alone, like the
      published suite's argument `random`. None takes fresh entropy.
    exact: whether to reproduce the published suite number for number.

  Raises:
    ValueError: for an unknown domain, task, perturbation or constraint, with
      near matches, and for a perturbation that starts out of its range.
  """
  challenges = challenges or Challenges()
  known = {f"{name}/{each}" for name in DOMAINS for each in DOMAINS[name].tasks}
  if f"{domain}/{task}" not in known:
    raise ValueError(
      checks.unknown("Real-World RL task", f"{domain}/{task}", known)
    )
  rng: Any = np.random
  random = np.random.RandomState(seed)
  if not exact:
    seeds = np.random.SeedSequence(seed).spawn(2)
    random = np.random.RandomState(np.random.MT19937(seeds[0]))
    rng = np.random.default_rng(seeds[1])
  faults = PUBLISHED if exact else CORRECTED
  plant = _Plant(domain, task, challenges, random, rng, faults)
  return ChallengedEnvironment(
    plant,
    challenges,
    rng,
    constraints=plant.constraints,
    objectives=plant.objectives,
    faults=faults,
  )


def _schedule(
  domain: str, challenges: Challenges, rng: Any, faults: Faults
) -> Schedule:
  """Returns the schedule of the perturbation.

  Raises:
    ValueError: for an unknown parameter, and for numbers that do not fit it.
  """
  name = challenges.perturbation
  known = suite_data()["domains"][domain]["parameters"]
  if name not in known:
    raise ValueError(
      checks.unknown(f"{domain} perturbation", name, [*known, "none"])
    )
  numbers = dict(known[name])
  for key in numbers:
    value = getattr(challenges, f"perturbation_{key}")
    if value is not None:
      numbers[key] = value
  least, most = numbers["min"], numbers["max"]
  # The domain's own start need not lie in a range that was changed.
  start = challenges.perturbation_start
  if not least <= (least if start is None else start) <= most:
    raise ValueError(
      f"perturbation_start ({numbers['start']}) of {name} must lie in the range"
      f" from perturbation_min ({least}) to perturbation_max ({most})."
    )
  return Schedule(
    challenges.perturbation_scheduler,
    rng=rng,
    saw_wave_forgets=faults.saw_wave_forgets,
    **numbers,
  )


def all_levels() -> list[str]:
  """Returns every <domain>/<task>/<level>."""
  return [
    f"{domain}/{task}/{level}"
    for domain, parts in DOMAINS.items()
    for task in parts.tasks
    for level in LEVELS
  ]


class RealWorld(batches.BatchOfEnvironments):
  """Tasks of the suite that are stepped one after the other.

  Observations are flattened to one float32 vector: the task's features, then,
  if there are any, `constraints`, the random entries and `multiobj`.
  """

  def __init__(
    self,
    level: str,
    num_environments: int,
    seed: int,
    *,
    exact: bool = False,
    **options: Any,
  ):
    """Makes the environments.

    Args:
      level: "<domain>/<task>/<level>", for example "walker/walk/easy".
      num_environments: members of the batch.
      seed: every member is seeded from it and from its place.
      exact: whether to reproduce the published suite, see `load`; members are
        then seeded with seed, seed + 1, ...
      **options: fields of `Challenges` to change; None keeps the level's value.

    Raises:
      ValueError: for an unknown name or option, with near matches, and for an
        option out of its range.
    """
    known = all_levels()
    if level not in known:
      raise ValueError(checks.unknown("Real-World RL task", level, known))
    self._level = level
    domain, task, difficulty = level.split("/")
    changes = {k: v for k, v in options.items() if v is not None}
    challenges = Challenges.combined(domain, difficulty, **changes)
    super().__init__([
      wrappers.FlatObservation(
        load(
          domain,
          task,
          challenges=challenges,
          seed=seed + member if exact else (seed, member),
          exact=exact,
        )
      )
      for member in range(num_environments)
    ])

  def reward_spec(self) -> specs.Array:
    """Returns the suite's bounds, [0, 1], which every challenge keeps."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, name="reward")

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    camera_id = control_suite.camera_of(self._level)
    return control_suite.draw(member.physics, self._level, camera_id)
