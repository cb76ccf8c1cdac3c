"""The Real-World RL suite: rwrl:<domain>/<task>/<level>.

Tasks of the DeepMind Control Suite in a world with delays, noisy, dropped and
stuck sensors, repeated actions, physics that change between episodes, and
observations that mean nothing (Dulac-Arnold et al., 2020). Rewards are the
tasks' own. Episodes last 1000 steps and end with discount 1: values bootstrap
there.

Two modes. **Exact** reproduces the published suite number for number: all
challenges draw from NumPy's global generator, in the published order, whatever
the seed, which sets the initial states alone. The **default** draws from a
generator of its own for every environment. It differs besides where the
published suite has a fault:

* Episode boundaries. Published: buffers, counters and held values go on, so
  that an episode starts with the observations, rewards and actions of the last
  one. Default: they start anew, as a reset of a real system would, and every
  episode pays the same: its first reward `reward_delay` + 1 times, the others
  that late, the last `reward_delay` never. The perturbed parameter goes on in
  both: that is its point.
* `saw_wave`. Published: the value is the step itself, so that it sticks at the
  end of a range of positive numbers. Default: what the suite's documentation
  describes, up to the maximum and down to the minimum.
* `constraints` entry. Published: it escapes the observation's delay, since all
  delayed observations share one array. Default: it is as late as the rest.
* Constraints at a reset. Published: evaluated before the derived quantities of
  the new state (orientations, accelerations, forces) are computed. Default:
  after.
* Walker, `joint_angle`. Published: some joint is above its lower limit and some
  below its upper one, so practically always satisfied. Default: all joints
  are within their limits.
* Humanoid, `joint_velocity`. Published: the first joint is left out. Default:
  all joints.
* Walker, `torso_length`. Published: both thighs move to the right side.
  Default: each keeps its side.

Reading the specs never has an effect, in neither mode. Reading the published
suite's observation spec passes an observation through its buffers and takes
random numbers; a comparison must not read it before the end.

Physics are compiled anew for a new value of the perturbed parameter only, and
with a sky of low resolution, which is nearly all of the time that compiling
takes.
"""

import contextlib
import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

# Imports dm-control with a renderer that works, so it must be the first.
from acme_stac.environments import control as control_suite  # isort: skip
from dm_control.rl import control
from dm_control.suite import cartpole, common, humanoid, quadruped, walker
from lxml import etree

from acme_stac import checks
from acme_stac.environments import base, wrappers
from acme_stac.environments.challenges import (
  LEVELS,
  Challenge,
  Challenges,
  Schedule,
  suite_data,
  wrap,
)

# From physics to whether a constraint is satisfied.
Constraint = Callable[[Any], bool]
# Which elements of the model (XPath) get which attributes.
Edits = Mapping[str, Mapping[str, str]]


# Where a quadruped with legs as long as a house starts.
_MAX_HEIGHT = 20.0


@dataclasses.dataclass(frozen=True)
class _Domain:
  """What the suite adds to a domain of the Control Suite.

  Attributes:
    physics: class of the domain's physics.
    tasks: makes each task from its random state.
    model: returns the XML of a task's model.
    edits: for each parameter that can be perturbed, from its value and the
      exact mode to the changes of the model.
    constraints: from task, safety coefficient and exact mode to the
      constraints.
    action_rate: limit of the change of an action in a step.
  """

  physics: Any
  tasks: Mapping[str, Callable[[np.random.RandomState], control.Task]]
  model: Callable[[str], str | bytes]
  edits: Mapping[str, Callable[[float, bool], Edits]]
  constraints: Callable[[str, float, bool], dict[str, Constraint]]
  action_rate: float


def _cartpole_constraints(
  task: str, coefficient: float, exact: bool
) -> dict[str, Constraint]:
  del exact
  position, acceleration = (2.0, 130.0) if task == "swingup" else (1.5, 10.0)
  near_upright = np.cos((1.0 - coefficient) / 0.5 + 0.15)

  def balance_velocity(physics: Any) -> bool:
    fast = abs(physics.angular_vel()[0]) > 0.5 * coefficient
    return not (fast and physics.pole_angle_cosine()[0] > near_upright)

  return {
    "slider_pos": lambda p: abs(p.cart_position()) < position * coefficient,
    "slider_accel": lambda p: (
      abs(p.named.data.qacc["slider"][0]) < acceleration * coefficient
    ),
    "balance_velocity": balance_velocity,
  }


_WALKER_JOINTS = [
  f"{side}_{joint}"
  for joint in ("hip", "knee", "ankle")
  for side in ("left", "right")
]


def _walker_constraints(
  task: str, coefficient: float, exact: bool
) -> dict[str, Constraint]:
  del task
  degrees = np.array([[-30.0, -160.0, -75.0], [110.0, 15.0, 60.0]])
  lower, upper = np.repeat(coefficient * degrees * np.pi / 180.0, 2, axis=1)

  def joint_angle(physics: Any) -> bool:
    angles = np.ravel(physics.named.data.qpos[_WALKER_JOINTS])
    within = np.any if exact else np.all
    return bool(within(angles > lower) and within(angles < upper))

  return {
    "joint_angle": joint_angle,
    "joint_velocity": lambda p: (
      np.abs(p.data.qvel[3:]).max() < 65.0 * coefficient
    ),
    "dangerous_fall": lambda p: (
      -p.named.data.xmat["torso", "zx"] > -0.5 * coefficient
    ),
    "torso_upright": lambda p: p.torso_upright() > 1.0 - coefficient,
  }


_TOES = [
  f"force_toe_{end}_{side}"
  for end in ("front", "back")
  for side in ("left", "right")
]


def _quadruped_constraints(
  task: str, coefficient: float, exact: bool
) -> dict[str, Constraint]:
  del exact
  velocity, force = (20.0, 20_000.0) if task == "walk" else (0.4, 300_000.0)
  # The joints behind the root, which has 7 coordinates and 6 velocities, are
  # the legs' hinges.
  return {
    "joint_angle": lambda p: (
      np.abs(p.data.qpos[7:]).max() < coefficient * 60.0 * np.pi / 180.0
    ),
    "joint_velocity": lambda p: (
      np.abs(p.data.qvel[6:]).max() < velocity * coefficient
    ),
    "upright": lambda p: p.torso_upright() > 1.0 - 0.7 * coefficient,
    "foot_force": lambda p: (
      max(np.linalg.norm(p.named.data.sensordata[toe]) for toe in _TOES)
      < force * coefficient
    ),
  }


_FEET = [
  f"{side}_{part}_foot_touch"
  for side in ("right", "left")
  for part in ("left", "right")
]


def _humanoid_constraints(
  task: str, coefficient: float, exact: bool
) -> dict[str, Constraint]:
  del task
  first_joint = 7 if exact else 6

  def touch(physics: Any, names: Sequence[str]) -> float:
    return max(abs(physics.named.data.sensordata[n][0]) for n in names)

  return {
    "joint_angle": lambda p: (
      np.abs(p.data.qpos[7:]).max() < np.pi * coefficient
    ),
    "joint_velocity": lambda p: (
      np.abs(p.data.qvel[first_joint:]).max() < 90.0 * coefficient
    ),
    "upright": lambda p: p.torso_upright() > 1.0 - coefficient,
    "dangerous_fall": lambda p: (
      touch(p, ["head_touch", "torso_touch"]) < 100.0 * coefficient
    ),
    "foot_force": lambda p: touch(p, _FEET) < 8_000.0 * coefficient,
  }


def _thigh_length(value: float, exact: bool) -> Edits:
  del exact
  thigh = {"pos": f"0 0 {-value}", "size": f"0.05 {value}"}
  leg = {"pos": f"0 0 {-0.25 - 2 * value}"}
  return {
    ".//geom[@name='right_thigh']": thigh,
    ".//geom[@name='left_thigh']": thigh,
    ".//body[@name='right_leg']": leg,
    ".//body[@name='left_leg']": leg,
  }


def _torso_length(value: float, exact: bool) -> Edits:
  left = "-.05" if exact else ".05"
  return {
    ".//geom[@name='torso']": {"size": f"0.07 {value}"},
    ".//body[@name='right_thigh']": {"pos": f"0 -.05 {-value}"},
    ".//body[@name='left_thigh']": {"pos": f"0 {left} {-value}"},
  }


def _shin_length(value: float, exact: bool) -> Edits:
  del exact
  ankle = {"pos": f"{value} 0 {-value}"}
  return {
    ".//default[@class='knee']/geom": {
      "fromto": f"0 0 0 {value} 0 {-value}"
    },
    **{
      f".//body[@name='ankle_{end}_{side}']": ankle
      for end in ("front", "back")
      for side in ("left", "right")
    },
  }


def _attribute(path: str, name: str) -> Callable[[float, bool], Edits]:
  """Returns the edit that sets one attribute to the value."""
  return lambda value, exact: {path: {name: f"{value}"}}


def _friction(bodies: str, rolling: str = " .1 .1"):
  """Returns the edit of the friction of floor and bodies."""
  return lambda value, exact: {
    ".//geom[@name='floor']": {"friction": f"{value} .1 .1"},
    bodies: {"friction": f"{value}{rolling}"},
  }


class _UprightMove(quadruped.Move):
  """Starts upright with a random heading, unlike the stock task."""

  def initialize_episode(self, physics: Any):
    azimuth = self.random.uniform(0, 2 * np.pi)
    orientation = (np.cos(azimuth / 2), 0.0, 0.0, np.sin(azimuth / 2))
    height = 0.0
    # From within the floor up, until nothing touches.
    while height < _MAX_HEIGHT:
      # Too many contacts for the simulator are contacts, too.
      with contextlib.suppress(control.PhysicsError), physics.reset_context():
        physics.named.data.qpos["root"][:3] = 0.0, 0.0, height
        physics.named.data.qpos["root"][3:] = orientation
      if not physics.data.ncon:
        break
      height += 0.01
    else:
      raise ValueError(
        f"The quadruped touches something up to a height of {_MAX_HEIGHT} m."
        " Set a smaller perturbation_max."
      )
    # Not that of Move, which tumbles it.
    super(quadruped.Move, self).initialize_episode(physics)


_QUADRUPED_SPEEDS = {"walk": 0.5, "run": 5.0}

_DOMAINS: Mapping[str, _Domain] = {
  "cartpole": _Domain(
    physics=cartpole.Physics,
    tasks={
      "balance": lambda r: cartpole.Balance(False, False, random=r),
      "swingup": lambda r: cartpole.Balance(True, False, random=r),
    },
    model=lambda task: cartpole.get_model_and_assets()[0],
    edits={
      "pole_length": lambda value, exact: {
        ".//default[@class='pole']/geom": {
          "fromto": f"0 0 0 0 0 {value}",
          "mass": f"{value / 10.0}",
        }
      },
      "pole_mass": _attribute(".//default[@class='pole']/geom", "mass"),
      "joint_damping": _attribute(
        ".//default[@class='pole']/joint", "damping"
      ),
      "slider_damping": _attribute(".//joint[@name='slider']", "damping"),
    },
    constraints=_cartpole_constraints,
    action_rate=1.5,
  ),
  "walker": _Domain(
    physics=walker.Physics,
    tasks={
      "stand": lambda r: walker.PlanarWalker(0, random=r),
      "walk": lambda r: walker.PlanarWalker(1, random=r),
      "run": lambda r: walker.PlanarWalker(8, random=r),
    },
    model=lambda task: walker.get_model_and_assets()[0],
    edits={
      "thigh_length": _thigh_length,
      "torso_length": _torso_length,
      "joint_damping": _attribute("./default/joint", "damping"),
      "contact_friction": _friction("./default/geom"),
    },
    constraints=_walker_constraints,
    action_rate=1.55,
  ),
  "quadruped": _Domain(
    physics=quadruped.Physics,
    tasks={
      task: functools.partial(_UprightMove, speed)
      for task, speed in _QUADRUPED_SPEEDS.items()
    },
    # The floor is as long as the way of an episode at full speed.
    model=lambda task: quadruped.make_model(
      floor_size=20 * _QUADRUPED_SPEEDS[task]
    ),
    edits={
      "shin_length": _shin_length,
      "torso_density": _attribute(".//geom[@name='torso']", "density"),
      "joint_damping": _attribute(
        ".//default[@class='body']/joint", "damping"
      ),
      "contact_friction": _friction(".//default[@class='toe']/geom", ""),
    },
    constraints=_quadruped_constraints,
    action_rate=1.4,
  ),
  "humanoid": _Domain(
    physics=humanoid.Physics,
    tasks={
      "stand": lambda r: humanoid.Humanoid(0, False, random=r),
      "walk": lambda r: humanoid.Humanoid(1, False, random=r),
    },
    model=lambda task: humanoid.get_model_and_assets()[0],
    edits={
      "contact_friction": _friction(".//default[@class='body']/geom"),
      "joint_damping": _attribute(
        ".//default[@class='body']/joint", "damping"
      ),
      "head_size": _attribute(".//geom[@name='head']", "size"),
    },
    constraints=_humanoid_constraints,
    action_rate=1.85,
  ),
}
# Entries that are scalars in the Control Suite and vectors here.
_VECTORS = {"walker": ("height",), "quadruped": ("torso_upright",)}


@functools.cache
def _assets() -> dict[str, bytes]:
  """Returns the suite's common assets, with a sky that takes no time."""
  name = "./common/skybox.xml"
  small = re.sub(rb'"800"', b'"64"', common.ASSETS[name])
  return {**common.ASSETS, name: small}


class _Model:
  """Compiles the model of a task with a value of a perturbed parameter."""

  def __init__(self, domain: str, task: str, parameter: str, exact: bool):
    self._domain = _DOMAINS[domain]
    self._parameter, self._exact = parameter, exact
    parser = etree.XMLParser(remove_blank_text=True)
    self._root = etree.XML(self._domain.model(task), parser)

  def compile(self, value: float | None) -> Any:
    """Returns physics; None is the nominal value."""
    root = copy.deepcopy(self._root)
    if value is not None:
      edits = self._domain.edits[self._parameter](value, self._exact)
      for path, attributes in edits.items():
        elements = root.findall(path)
        assert elements, path
        for element in elements:
          element.attrib.update(attributes)
    return self._domain.physics.from_xml_string(
      etree.tostring(root), _assets()
    )


class _Task(control.Task):
  """A stock task with safety constraints and the multi-objective reward.

  Attributes:
    satisfied: state of the constraints after the last step or reset, bool [C].
  """

  def __init__(
    self,
    task: control.Task,
    constraints: Mapping[str, Constraint | None],
    action_rate: float,
    alpha: float,
    vectors: Sequence[str],
    exact: bool,
  ):
    """Wraps `task`.

    Args:
      task: the stock task.
      constraints: by name; None is the action rate.
      action_rate: limit of the change of an action in a step.
      alpha: weight of the constraints in the reward.
      vectors: scalar observations to return as vectors of one.
      exact: evaluate the constraints when the published suite does.
    """
    self._task = task
    self._constraints = constraints
    self._action_rate = action_rate
    self._alpha = alpha
    self._vectors = vectors
    self._exact = exact
    self._last_action: np.ndarray | None = None
    self.satisfied = np.ones(len(constraints), bool)

  def initialize_episode(self, physics: Any):
    self._task.initialize_episode(physics)
    if self._exact:
      self._evaluate(physics)

  def episode_started(self, physics: Any):
    """Does what needs the derived quantities of the initial state."""
    if not self._exact:
      self._evaluate(physics)

  def before_step(self, action: np.ndarray, physics: Any):
    self._last_action = physics.control()
    self._task.before_step(action, physics)

  def after_step(self, physics: Any):
    self._task.after_step(physics)
    self._evaluate(physics)
    self._last_action = None

  def _evaluate(self, physics: Any):
    self.satisfied = np.array(
      [
        self._is_smooth(physics) if constraint is None else constraint(physics)
        for constraint in self._constraints.values()
      ],
      bool,
    )

  def _is_smooth(self, physics: Any) -> bool:
    if self._last_action is None:
      return True
    change = np.abs(self._last_action - physics.control())
    return bool(np.all(change < self._action_rate))

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


class _Plant(Challenge):
  """The simulation in the middle of the challenges.

  Attributes:
    task: the simulated task.
    perturbation: current value of the perturbed parameter; None as long as it
      has its nominal one.
  """

  def __init__(
    self,
    model: _Model,
    task: _Task,
    time_limit: float,
    control_timestep: float,
    schedule: Schedule | None,
    period: int,
  ):
    """Makes the nominal physics.

    Args:
      model: compiles physics.
      task: the task.
      time_limit: length of an episode in seconds.
      control_timestep: length of a step in seconds.
      schedule: values of the perturbed parameter, if it is.
      period: episodes between its new values.
    """
    self._model = model
    self.task = task
    self._times = (time_limit, control_timestep)
    self._schedule, self._period = schedule, period
    self._episodes = 0
    self.perturbation: float | None = None
    super().__init__(self._simulation())

  def _simulation(self) -> control.Environment:
    time_limit, control_timestep = self._times
    return control.Environment(
      self._model.compile(self.perturbation),
      self.task,
      time_limit=time_limit,
      control_timestep=control_timestep,
    )

  def constraints(self) -> np.ndarray:
    """Returns the state of the constraints, bool [C]."""
    return self.task.satisfied.copy()

  def objectives(self) -> np.ndarray:
    """Returns the task's own reward and the share of constraints, [2]."""
    return self.task.objectives(self.physics)

  def reset(self) -> dm_env.TimeStep:
    if self._schedule is not None and self._episodes % self._period == 0:
      value = self._schedule.next()
      if value != self.perturbation:
        self.perturbation = value
        self._environment = self._simulation()
    self._episodes += 1
    step = super().reset()
    self.task.episode_started(self.physics)
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

  The module's documentation says what the two modes are. `physics` and
  `perturbation`, the current value of the perturbed parameter, are attributes
  of what is returned.

  Args:
    domain: "cartpole", "walker", "quadruped" or "humanoid".
    task: name of the task, for example "walk".
    challenges: what is wrong with the world, for example
      `Challenges.combined("walker", "easy")`; None for nothing.
    seed: seeds everything; in exact mode the initial states alone, as the
      published suite's argument `random`. None takes fresh entropy.
    exact: reproduce the published suite number for number.

  Raises:
    ValueError: for an unknown domain, task, perturbation or constraint, with
      near matches, and for an empty range of the perturbation.
  """
  challenges = challenges or Challenges()
  if domain not in _DOMAINS:
    raise ValueError(checks.unknown("Real-World RL domain", domain, _DOMAINS))
  parts = _DOMAINS[domain]
  if task not in parts.tasks:
    raise ValueError(checks.unknown(f"{domain} task", task, parts.tasks))
  rng: Any = np.random
  random_state = np.random.RandomState(seed)
  if not exact:
    seeds = np.random.SeedSequence(seed).spawn(2)
    random_state = np.random.RandomState(np.random.MT19937(seeds[0]))
    rng = np.random.default_rng(seeds[1])
  data = suite_data()["domains"][domain]
  plant = _Plant(
    model=_Model(domain, task, challenges.perturbation, exact),
    task=_Task(
      parts.tasks[task](random_state),
      constraints=_constraints(domain, task, challenges, exact),
      action_rate=parts.action_rate * challenges.safety_coefficient,
      alpha=challenges.multi_objective_alpha,
      vectors=_VECTORS.get(domain, ()),
      exact=exact,
    ),
    time_limit=data["time_limit"],
    control_timestep=data["control_timestep"],
    schedule=_schedule(domain, challenges, rng, exact),
    period=challenges.perturbation_period,
  )
  return wrap(
    plant,
    challenges,
    rng,
    constraints=plant.constraints,
    objectives=plant.objectives,
    exact=exact,
  )


def _constraints(
  domain: str, task: str, challenges: Challenges, exact: bool
) -> dict[str, Constraint | None]:
  """Returns the constraints to evaluate; raises ValueError for unknown ones."""
  if not challenges.safety:
    return {}
  default = _DOMAINS[domain].constraints(
    task, challenges.safety_coefficient, exact
  )
  known: dict[str, Constraint | None] = {**default, "action_rate": None}
  for name in challenges.safety_constraints:
    if name not in known:
      raise ValueError(checks.unknown(f"{domain} constraint", name, known))
  return {n: known[n] for n in challenges.safety_constraints or default}


def _schedule(
  domain: str, challenges: Challenges, rng: Any, exact: bool
) -> Schedule | None:
  """Returns the perturbation; raises ValueError if there is no such one."""
  name = challenges.perturbation
  if name == "none":
    return None
  known = suite_data()["domains"][domain]["perturb_params"]
  if name not in known:
    raise ValueError(
      checks.unknown(f"{domain} perturbation", name, [*known, "none"])
    )
  numbers = dict(known[name])
  for key in numbers:
    value = getattr(challenges, f"perturbation_{key}")
    if value is not None:
      numbers[key] = value
  if numbers["min"] > numbers["max"]:
    raise ValueError(
      f"The range of {name} is empty: {numbers['min']} to {numbers['max']}."
      " Set both perturbation_min and perturbation_max."
    )
  start = challenges.perturbation_start
  if start is not None and not numbers["min"] <= start <= numbers["max"]:
    raise ValueError(
      f"perturbation_start ({start}) of {name} must lie in its range,"
      f" [{numbers['min']}, {numbers['max']}]; perturbation_min and"
      " perturbation_max change that."
    )
  return Schedule(
    challenges.perturbation_scheduler,
    start=numbers["start"],
    minimum=numbers["min"],
    maximum=numbers["max"],
    std=numbers["std"],
    rng=rng,
    exact=exact,
  )


def all_levels() -> list[str]:
  """Returns every <domain>/<task>/<level>."""
  return [
    f"{domain}/{task}/{level}"
    for domain, parts in _DOMAINS.items()
    for task in parts.tasks
    for level in LEVELS
  ]


class RealWorld(base.BatchOfEnvironments):
  """A task of the suite, its members stepped one after the other.

  Observations are flattened to one float32 vector: the task's features, then
  `constraints`, the random entries and `multiobj` where there are any.
  """

  # The options besides those that the constructor names.
  OPTIONS = Challenges

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
      level: "<domain>/<task>/<level>", for example "walker/walk/easy"; levels
        are none, easy, medium and hard.
      num_environments: members of the batch.
      seed: every member is seeded from it and from its place.
      exact: reproduce the published suite, see `load`; members are seeded with
        seed, seed + 1, ...
      **options: fields of `Challenges` to set besides those of the level; None
        leaves what the level says.

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
    """Returns the suite's bounds: every challenge keeps rewards in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, name="reward")

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    camera_id = control_suite.camera_of(self._level)
    return control_suite.draw(member.physics, self._level, camera_id)
