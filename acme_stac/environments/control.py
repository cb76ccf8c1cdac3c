"""The DeepMind Control Suite: control:<task> and control_pixels:<task>."""

import ctypes.util
import os
import sys
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import batches, wrappers

_RENDERER = "MUJOCO_GL"
# Renderer -> its library and Debian's package of it.
_LIBRARIES = {"egl": ("EGL", "libegl1"), "osmesa": ("OSMesa", "libosmesa6")}


def _import_suite() -> Any:
  """Imports the suite with a renderer that works here.

  dm-control chooses its renderer when it is imported, and fails where it finds
  none, although features need none. Here that is EGL, else OSMesa, else none; a
  screen is not needed, and one that is named but gone would end the process.
  MUJOCO_GL, if set, stays in force.

  Raises:
    ImportError: if dm-control is not there, or MUJOCO_GL names a renderer that
      cannot be loaded.
  """
  chosen = os.environ.get(_RENDERER, "")
  if not chosen and "dm_control" not in sys.modules:
    found = [
      renderer
      for renderer, (library, _) in _LIBRARIES.items()
      if ctypes.util.find_library(library)
    ]
    os.environ[_RENDERER] = found[0] if found else "off"
    try:
      from dm_control import suite
    except ImportError:
      # The library is there, but no device that it could use.
      os.environ[_RENDERER] = "off"
  try:
    from dm_control import suite
  except RuntimeError as error:
    raise ImportError(f"dm-control cannot be imported: {error}") from error
  except AttributeError as error:
    # What PyOpenGL raises where a library is missing.
    library, package = _LIBRARIES.get(chosen, ("the renderer", "its package"))
    raise ImportError(
      f"{_RENDERER}={chosen}, but {library} cannot be loaded: {error}. Install"
      f" it (Debian: {package}), or unset {_RENDERER}"
    ) from error
  return suite


try:
  suite = _import_suite()
except ModuleNotFoundError as error:
  raise ImportError(
    f"dm-control cannot be imported ({error}). 'make setup' brings it, or pip"
    " install dm-control."
  ) from error

# Steps of an episode of a task that has no time limit; with one it is as many.
_EPISODE_STEPS = 1000
# Where there is no GPU, most of an image's time goes into its shadows. A map of
# 512² in place of the suite's 2048² changes an 84 × 84 image by at most a few
# 255ths.
_SHADOW_MAP = 512
# Quadruped's first camera is far away; this is the one that others use.
_MAX_PIXELS = 2048
_CAMERAS = {"quadruped": 2}
# Height and width of what `draw` draws.
_DRAWN_SIZE = (240, 320)


def load(level: str, seed: int) -> dm_env.Environment:
  """Loads a task of the suite, bounded in time and in its actions.

  As the suite has it, but for the two tasks of lqr, which have neither a time
  limit nor bounds on their controls: episodes are cut off after 1,000 steps,
  and controls lie in [−1, 1].

  Args:
    level: "<domain>/<task>", for example "cartpole/swingup".
    seed: of the initial states.

  Raises:
    ValueError: for an unknown level, with near matches, and for one that cannot
      be drawn here although it must be.
  """
  known = ["/".join(task) for task in suite.ALL_TASKS]
  if level not in known:
    raise ValueError(checks.unknown("control task", level, known))
  domain, task = level.split("/")
  options: dict[str, Any] = {"random": seed}
  environment = suite.load(domain, task, task_kwargs=options)
  if domain == "lqr":
    limit = _EPISODE_STEPS * environment.control_timestep()
    environment = suite.load(
      domain, task, task_kwargs={**options, "time_limit": limit}
    )
    environment = _UnitControls(environment)
  if level == "quadruped/escape":
    # Its terrain is uploaded to the renderer.
    _need_renderer(level, lambda: environment.physics.contexts)
  return environment


def _need_renderer(level: str, draw: Callable[[], Any]) -> Any:
  """Returns what `draw` does; a ValueError says what is missing if it fails."""
  try:
    return draw()
  except Exception as error:  # Each renderer has errors of its own.
    raise ValueError(
      f"{level} is drawn, and nothing here can draw"
      f" ({_RENDERER}={os.environ.get(_RENDERER, '')!r}: {error}). Install EGL"
      " (Debian: libegl1) or OSMesa (libosmesa6), or set"
      f" {_RENDERER} to egl, osmesa or glfw before dm_control is imported."
    ) from error


def camera_of(level: str) -> int:
  """Returns the camera that shows most of "<domain>/<task>"."""
  return _CAMERAS.get(level.partition("/")[0], 0)


def draw(physics: Any, level: str, camera_id: int) -> np.ndarray:
  """Returns a picture of physics to look at, uint8 [240, 320, 3].

  Raises:
    ValueError: if nothing here can draw.
  """
  physics.model.vis.quality.shadowsize = _SHADOW_MAP
  return _need_renderer(
    level, lambda: physics.render(*_DRAWN_SIZE, camera_id=camera_id)
  )


class _UnitControls(wrappers.Wrapper):
  """Bounds controls that have no limits to [−1, 1]."""

  def action_spec(self) -> specs.BoundedArray:
    return self._environment.action_spec().replace(minimum=-1.0, maximum=1.0)


class _Drawn(wrappers.Wrapper):
  """Observes an image in place of the features."""

  def __init__(
    self,
    environment: dm_env.Environment,
    draw: Callable[[], np.ndarray],
    shape: tuple[int, ...],
  ):
    super().__init__(environment)
    self._draw = draw
    self._shape = shape

  def reset(self) -> dm_env.TimeStep:
    return self._environment.reset()._replace(observation=self._draw())

  def step(self, action: Any) -> dm_env.TimeStep:
    timestep = self._environment.step(action)
    return timestep._replace(observation=self._draw())

  def observation_spec(self) -> specs.BoundedArray:
    return specs.BoundedArray(self._shape, np.uint8, 0, 255, name="pixels")


class Control(batches.BatchOfEnvironments):
  """A task from its features.

  Features are in the task's own order, flattened to one float32 vector. A task
  ends by its time limit alone, or in a terminal state that its discount of 0
  marks: values bootstrap at a limit.
  """

  def __init__(
    self,
    level: str,
    num_environments: int,
    seed: int,
    *,
    action_repeat: int = 1,
  ):
    """Makes the environments.

    Args:
      level: "<domain>/<task>", for example "cartpole/swingup".
      num_environments: members of the batch.
      seed: members are seeded with seed, seed + 1, ...
      action_repeat: steps of the suite per action; their rewards add up.

    Raises:
      ValueError: for an unknown level, with near matches.
    """
    self.action_repeat = action_repeat
    self._level = level
    super().__init__([
      wrappers.FlatObservation(
        wrappers.ActionRepeat(load(level, seed + member), action_repeat)
      )
      for member in range(num_environments)
    ])

  def reward_spec(self) -> specs.Array:
    """Returns the suite's bounds, [0, 1] per step, which lqr alone leaves."""
    if self._level.startswith("lqr/"):
      return super().reward_spec()
    return specs.BoundedArray(
      (), np.float32, 0.0, self.action_repeat, name="reward"
    )

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    return draw(member.physics, self._level, camera_of(self._level))


class ControlPixels(batches.BatchOfEnvironments):
  """A task from what a camera sees: uint8 [height, width, 3 · frame_stack]."""

  def __init__(
    self,
    level: str,
    num_environments: int,
    seed: int,
    *,
    height: int = 84,
    width: int = 84,
    camera_id: int | None = None,
    action_repeat: int = 1,
    frame_stack: int = 1,
  ):
    """Makes the environments.

    Args:
      level: "<domain>/<task>", for example "cartpole/swingup".
      num_environments: members of the batch.
      seed: members are seeded with seed, seed + 1, ...
      height: of an image, in pixels.
      width: of an image, in pixels.
      camera_id: number of the camera; None for 0, or 2 of a quadruped.
      action_repeat: steps of the suite per action; their rewards add up and
        only the last is drawn.
      frame_stack: images of an observation, oldest first.

    Raises:
      ValueError: for an unknown level, with near matches, for numbers out of
        range, and if nothing here can draw.
    """
    for name, value in {"height": height, "width": width}.items():
      checks.check_integer(name, value, 1, _MAX_PIXELS)
    if camera_id is None:
      camera_id = camera_of(level)
    self._level, self._camera_id = level, camera_id
    self.action_repeat = action_repeat

    def make(member_seed: int) -> dm_env.Environment:
      task = load(level, member_seed)
      model = task.physics.model
      model.vis.quality.shadowsize = _SHADOW_MAP
      if not -1 <= camera_id < model.ncam:
        raise ValueError(
          f"camera_id of {level} must be -1, the free camera, or one of its"
          f" {model.ncam}, got {camera_id}."
        )
      # The suite's buffer has room for 640 × 480.
      buffer = model.vis.global_
      buffer.offheight = max(buffer.offheight, height)
      buffer.offwidth = max(buffer.offwidth, width)

      def draw() -> np.ndarray:
        return task.physics.render(height, width, camera_id=camera_id)

      shape = _need_renderer(f"control_pixels:{level}", draw).shape
      repeated = wrappers.ActionRepeat(task, action_repeat)
      return wrappers.FrameStack(_Drawn(repeated, draw, shape), frame_stack)

    super().__init__([make(seed + i) for i in range(num_environments)])

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    return draw(member.physics, self._level, self._camera_id)
