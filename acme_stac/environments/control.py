"""The DeepMind Control Suite: control:<task> and control_pixels:<task>."""

import ctypes.util
import importlib
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
# Libraries of the renderers, best first.
_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}


def _import_suite() -> Any:
  """Imports the suite with a renderer that works here.

  dm-control chooses its renderer when it is imported and fails if there is
  none, although features need none. Takes EGL, else OSMesa, else none. A screen
  is not used: naming one that is gone would end the process. MUJOCO_GL, if set,
  stays in force.

  Raises:
    ImportError: if dm-control is not installed, or if the renderer that
      MUJOCO_GL names cannot be loaded.
  """
  if not os.environ.get(_RENDERER) and "dm_control" not in sys.modules:
    found = [r for r in _LIBRARIES if ctypes.util.find_library(_LIBRARIES[r])]
    os.environ[_RENDERER] = found[0] if found else "off"
    try:
      return importlib.import_module("dm_control.suite")
    except ImportError:  # No device for the library, or no dm-control.
      os.environ[_RENDERER] = "off"
  try:
    return importlib.import_module("dm_control.suite")
  except ModuleNotFoundError as error:
    raise ImportError(
      f"dm-control cannot be imported ({error}). 'make setup' installs it, or"
      " pip install dm-control."
    ) from error
  # An unknown renderer; PyOpenGL without the renderer's library.
  except (RuntimeError, AttributeError) as error:
    raise ImportError(
      "dm-control cannot be imported with"
      f" {_RENDERER}={os.environ.get(_RENDERER, '')}: {error}. Install the"
      " renderer's library (Debian: libegl1 for egl, libosmesa6 for osmesa), or"
      f" unset {_RENDERER}."
    ) from error


suite = _import_suite()

# Steps of an episode of a task without a time limit; all others have as many.
_EPISODE_STEPS = 1000
# Without a GPU, most of an image's time goes into its shadows. A map of 512² in
# place of the suite's 2048² changes an 84 × 84 image by a few 255ths at most.
_SHADOW_MAP = 512
# Of domains whose first camera is too far away.
_CAMERAS = {"quadruped": 2}
# Height and width of a picture of `draw`.
_DRAWN_SIZE = (240, 320)


def load(level: str, seed: int) -> dm_env.Environment:
  """Loads a task of the suite, with bounded episodes and actions.

  Changes only lqr, whose two tasks have neither a time limit nor bounds on
  their controls: episodes are cut off after 1,000 steps, and controls lie in
  [−1, 1].

  Args:
    level: "<domain>/<task>", for example "cartpole/swingup".
    seed: of the initial states.

  Raises:
    ValueError: for an unknown level, with near matches, and for one that needs
      a renderer where there is none.
  """
  known = ["/".join(task) for task in suite.ALL_TASKS]
  if level not in known:
    raise ValueError(checks.unknown("control task", level, known))
  domain, task = level.split("/")
  options: dict[str, Any] = {"random": seed}
  environment = suite.load(domain, task, task_kwargs=options)
  if domain == "lqr":
    options["time_limit"] = _EPISODE_STEPS * environment.control_timestep()
    environment = _UnitControls(suite.load(domain, task, task_kwargs=options))
  if level == "quadruped/escape":
    # Its terrain is uploaded to the renderer.
    _need_renderer(level, lambda: environment.physics.contexts)
  return environment


def _need_renderer(level: str, draw: Callable[[], Any]) -> Any:
  """Returns what `draw` returns; raises ValueError with advice if it fails."""
  try:
    return draw()
  except Exception as error:  # Each renderer has errors of its own.
    raise ValueError(
      f"{level} needs a renderer, and none works here"
      f" ({_RENDERER}={os.environ.get(_RENDERER, '')!r}: {error}). Install EGL"
      " (Debian: libegl1) or OSMesa (libosmesa6), or set"
      f" {_RENDERER} to egl, osmesa or glfw."
    ) from error


def camera_of(level: str) -> int:
  """Returns the camera that shows most of "<domain>/<task>"."""
  return _CAMERAS.get(level.partition("/")[0], 0)


def draw(physics: Any, level: str, camera_id: int) -> np.ndarray:
  """Returns a picture of physics for people, uint8 [240, 320, 3].

  Raises:
    ValueError: if no renderer works.
  """
  physics.model.vis.quality.shadowsize = _SHADOW_MAP
  return _need_renderer(
    level, lambda: physics.render(*_DRAWN_SIZE, camera_id=camera_id)
  )


class _UnitControls(wrappers.Wrapper):
  """Bounds controls that have no limits to [−1, 1]."""

  def action_spec(self) -> specs.BoundedArray:
    return self._environment.action_spec().replace(minimum=-1.0, maximum=1.0)


class _Pixels(wrappers.ObservationWrapper):
  """Observes an image in place of the features."""

  def __init__(
    self, environment: dm_env.Environment, draw: Callable[[], np.ndarray]
  ):
    super().__init__(environment)
    self._draw = draw
    self._shape = draw().shape

  def observe(self, timestep: dm_env.TimeStep) -> np.ndarray:
    return self._draw()

  def observation_spec(self) -> specs.BoundedArray:
    return specs.BoundedArray(self._shape, np.uint8, 0, 255, name="pixels")


class Control(batches.BatchOfEnvironments):
  """A task from its features.

  Features are in the task's own order, flattened to one float32 vector. A task
  ends at its time limit, where values bootstrap, or in a terminal state, with
  discount 0.
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
    """Returns the suite's bounds, [0, 1] per step, which only lqr leaves."""
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
        only the last one is drawn.
      frame_stack: images of an observation, oldest first.

    Raises:
      ValueError: for an unknown level, with near matches, for numbers out of
        range, and if no renderer works.
    """
    checks.check_integer("height", height, minimum=1)
    checks.check_integer("width", width, minimum=1)
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

      _need_renderer(f"control_pixels:{level}", draw)
      pixels = _Pixels(wrappers.ActionRepeat(task, action_repeat), draw)
      return wrappers.FrameStack(pixels, frame_stack)

    super().__init__([make(seed + i) for i in range(num_environments)])

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    return draw(member.physics, self._level, self._camera_id)
