"""What the suite adds to four domains of the DeepMind Control Suite."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from dm_control.rl import control
from dm_control.suite import cartpole, humanoid, quadruped, walker

from acme_stac.environments.rwrl.faults import Faults

# From physics to whether a constraint holds.
Constraint = Callable[[Any], bool]
# Attributes to change in a model, by the XPath of the elements that have them.
Edits = Mapping[str, Mapping[str, str]]
# From the value of a parameter to the changes of the model.
Parameter = Callable[[float, Faults], Edits]

# Where the search for a quadruped's initial height ends.
_MAX_HEIGHT = 20.0


class Domain(NamedTuple):
  """A domain of the suite.

  Attributes:
    physics: class of the domain's physics.
    tasks: makes each task from its random state.
    model: returns the XML of a task's model.
    parameters: physical parameters that can be perturbed, by name.
    constraints: from task, safety coefficient and faults to the constraints.
    action_rate: limit of the change of an action in a step.
    vectors: observations that are scalars in the Control Suite and vectors of
      one element here.
  """

  physics: Any
  tasks: Mapping[str, Callable[[np.random.RandomState], control.Task]]
  model: Callable[[str], str | bytes]
  parameters: Mapping[str, Parameter]
  constraints: Callable[[str, float, Faults], dict[str, Constraint]]
  action_rate: float
  vectors: Sequence[str] = ()


def _attribute(path: str, name: str) -> Parameter:
  """Returns a parameter that is one attribute."""
  return lambda value, faults: {path: {name: f"{value}"}}


def _friction(bodies: str, rolling: str = " .1 .1") -> Parameter:
  """Returns the friction of the floor and of bodies."""
  return lambda value, faults: {
    ".//geom[@name='floor']": {"friction": f"{value} .1 .1"},
    bodies: {"friction": f"{value}{rolling}"},
  }


# Cartpole.


def _cartpole_constraints(
  task: str, coefficient: float, faults: Faults
) -> dict[str, Constraint]:
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


_CARTPOLE = Domain(
  physics=cartpole.Physics,
  tasks={
    "balance": lambda r: cartpole.Balance(False, False, random=r),
    "swingup": lambda r: cartpole.Balance(True, False, random=r),
  },
  model=lambda task: cartpole.get_model_and_assets()[0],
  parameters={
    "pole_length": lambda value, faults: {
      ".//default[@class='pole']/geom": {
        "fromto": f"0 0 0 0 0 {value}", "mass": f"{value / 10.0}"
      }
    },
    "pole_mass": _attribute(".//default[@class='pole']/geom", "mass"),
    "joint_damping": _attribute(".//default[@class='pole']/joint", "damping"),
    "slider_damping": _attribute(".//joint[@name='slider']", "damping"),
  },
  constraints=_cartpole_constraints,
  action_rate=1.5,
)


# Walker.

_WALKER_JOINTS = [
  f"{side}_{joint}"
  for joint in ("hip", "knee", "ankle")
  for side in ("left", "right")
]


def _walker_constraints(
  task: str, coefficient: float, faults: Faults
) -> dict[str, Constraint]:
  degrees = np.array([[-30.0, -160.0, -75.0], [110.0, 15.0, 60.0]])
  lower, upper = np.repeat(coefficient * degrees * np.pi / 180.0, 2, axis=1)
  within = np.any if faults.walker_angles_always_safe else np.all

  def joint_angle(physics: Any) -> bool:
    angles = np.ravel(physics.named.data.qpos[_WALKER_JOINTS])
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


def _thigh_length(value: float, faults: Faults) -> Edits:
  thigh = {"pos": f"0 0 {-value}", "size": f"0.05 {value}"}
  leg = {"pos": f"0 0 {-0.25 - 2 * value}"}
  return {
    ".//geom[@name='right_thigh']": thigh,
    ".//geom[@name='left_thigh']": thigh,
    ".//body[@name='right_leg']": leg,
    ".//body[@name='left_leg']": leg,
  }


def _torso_length(value: float, faults: Faults) -> Edits:
  left = "-.05" if faults.walker_thighs_on_one_side else ".05"
  return {
    ".//geom[@name='torso']": {"size": f"0.07 {value}"},
    ".//body[@name='right_thigh']": {"pos": f"0 -.05 {-value}"},
    ".//body[@name='left_thigh']": {"pos": f"0 {left} {-value}"},
  }


_WALKER = Domain(
  physics=walker.Physics,
  tasks={
    "stand": lambda r: walker.PlanarWalker(0, random=r),
    "walk": lambda r: walker.PlanarWalker(1, random=r),
    "run": lambda r: walker.PlanarWalker(8, random=r),
  },
  model=lambda task: walker.get_model_and_assets()[0],
  parameters={
    "thigh_length": _thigh_length,
    "torso_length": _torso_length,
    "joint_damping": _attribute("./default/joint", "damping"),
    "contact_friction": _friction("./default/geom"),
  },
  constraints=_walker_constraints,
  action_rate=1.55,
  vectors=("height",),
)


# Quadruped.

_QUADRUPED_SPEEDS = {"walk": 0.5, "run": 5.0}
_ENDS = [
  f"{end}_{side}" for end in ("front", "back") for side in ("left", "right")
]


class _UprightMove(quadruped.Move):
  """Starts upright with a random heading, unlike the stock task."""

  def initialize_episode(self, physics: Any):
    azimuth = self.random.uniform(0, 2 * np.pi)
    orientation = (np.cos(azimuth / 2), 0.0, 0.0, np.sin(azimuth / 2))
    height = 0.0
    # Rises from within the floor until nothing touches.
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
    # Skips the one of Move, which tumbles the quadruped.
    super(quadruped.Move, self).initialize_episode(physics)


def _quadruped_constraints(
  task: str, coefficient: float, faults: Faults
) -> dict[str, Constraint]:
  velocity, force = (20.0, 20_000.0) if task == "walk" else (0.4, 300_000.0)
  toes = [f"force_toe_{end}" for end in _ENDS]
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
      max(np.linalg.norm(p.named.data.sensordata[toe]) for toe in toes)
      < force * coefficient
    ),
  }


def _shin_length(value: float, faults: Faults) -> Edits:
  ankle = {"pos": f"{value} 0 {-value}"}
  return {
    ".//default[@class='knee']/geom": {"fromto": f"0 0 0 {value} 0 {-value}"},
    **{f".//body[@name='ankle_{end}']": ankle for end in _ENDS},
  }


_QUADRUPED = Domain(
  physics=quadruped.Physics,
  tasks={
    "walk": lambda r: _UprightMove(_QUADRUPED_SPEEDS["walk"], random=r),
    "run": lambda r: _UprightMove(_QUADRUPED_SPEEDS["run"], random=r),
  },
  # The floor is as long as an episode at full speed needs.
  model=lambda task: quadruped.make_model(
    floor_size=20 * _QUADRUPED_SPEEDS[task]
  ),
  parameters={
    "shin_length": _shin_length,
    "torso_density": _attribute(".//geom[@name='torso']", "density"),
    "joint_damping": _attribute(".//default[@class='body']/joint", "damping"),
    "contact_friction": _friction(".//default[@class='toe']/geom", ""),
  },
  constraints=_quadruped_constraints,
  action_rate=1.4,
  vectors=("torso_upright",),
)


# Humanoid.


def _humanoid_constraints(
  task: str, coefficient: float, faults: Faults
) -> dict[str, Constraint]:
  first_joint = 7 if faults.humanoid_velocity_skips_joint else 6
  feet = [
    f"{side}_{part}_foot_touch"
    for side in ("right", "left")
    for part in ("left", "right")
  ]

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
    "foot_force": lambda p: touch(p, feet) < 8_000.0 * coefficient,
  }


_HUMANOID = Domain(
  physics=humanoid.Physics,
  tasks={
    "stand": lambda r: humanoid.Humanoid(0, False, random=r),
    "walk": lambda r: humanoid.Humanoid(1, False, random=r),
  },
  model=lambda task: humanoid.get_model_and_assets()[0],
  parameters={
    "contact_friction": _friction(".//default[@class='body']/geom"),
    "joint_damping": _attribute(".//default[@class='body']/joint", "damping"),
    "head_size": _attribute(".//geom[@name='head']", "size"),
  },
  constraints=_humanoid_constraints,
  action_rate=1.85,
)

DOMAINS: Mapping[str, Domain] = {
  "cartpole": _CARTPOLE,
  "walker": _WALKER,
  "quadruped": _QUADRUPED,
  "humanoid": _HUMANOID,
}
