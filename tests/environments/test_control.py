import os

import dm_env
import numpy as np
import pytest

from acme_stac import environments
from acme_stac.environments import control, wrappers

# Imported by this name it has a renderer that works here.
suite = control.suite
needs_renderer = pytest.mark.skipif(
  os.environ.get("MUJOCO_GL") == "off",
  reason="neither EGL nor OSMesa is installed",
)

FIRST, MID, LAST = (
  dm_env.StepType.FIRST,
  dm_env.StepType.MID,
  dm_env.StepType.LAST,
)


def actions(spec, steps, seed=0):
  rng = np.random.default_rng(seed)
  return [
    rng.uniform(spec.minimum, spec.maximum, spec.shape) for _ in range(steps)
  ]


@pytest.mark.parametrize(
  "level",
  [
    "cartpole/swingup", "humanoid/walk", "finger/spin", "fish/swim",
    # Ends in a terminal state, and has no bounds of its own.
    "lqr/lqr_2_1",
  ],
)
def test_control_is_the_bare_suite(level):
  """Physics, rewards, discounts and features are the suite's, resets too."""
  domain, task = level.split("/")
  limited = {"time_limit": 0.5, "random": 3}
  bare = suite.load(domain, task, task_kwargs=limited)
  batch = environments.make_batched(f"control:{level}", 1, seed=3)
  # Short episodes, so that some end.
  inner = batch.members[0]
  while isinstance(inner, wrappers.Wrapper):
    inner = inner._environment
  inner._step_limit = bare._step_limit
  step, mine = bare.reset(), batch.reset()
  lasts = 0
  for action in actions(batch.action_spec(), 120):
    features = np.concatenate([np.ravel(x) for x in step.observation.values()])
    assert mine.observation.dtype == np.float32
    np.testing.assert_array_equal(mine.observation[0], features.astype("f"))
    physics = batch.members[0].physics.data
    for name in ("qpos", "qvel", "ctrl", "time"):
      np.testing.assert_array_equal(
        getattr(physics, name), getattr(bare.physics.data, name)
      )
    assert mine.step_type[0] == step.step_type
    assert mine.reward[0] == np.float32(step.reward or 0.0)
    expected = 1.0 if step.discount is None else step.discount
    assert mine.discount[0] == np.float32(expected)
    lasts += step.last()
    step, mine = bare.step(action), batch.step(action[None])
  assert lasts > 0


def test_terminal_states_are_the_suites():
  """The one of lqr, where the state has come to rest."""
  batch = environments.make_batched("control:lqr/lqr_2_1", 1, seed=0)
  batch.reset()
  physics = batch.members[0].physics
  with physics.reset_context():
    physics.data.qpos[:] = 0.0
    physics.data.qvel[:] = 0.0
  step = batch.step(np.zeros((1, 1)))
  assert (step.step_type[0], step.discount[0]) == (LAST, 0.0)


def test_time_limit_bootstraps():
  batch = environments.make_batched("control:cartpole/balance", 2, seed=0)
  batch.reset()
  for _ in range(999):
    step = batch.step(np.zeros((2, 1)))
    assert (step.step_type == MID).all()
  step = batch.step(np.zeros((2, 1)))
  assert (step.step_type == LAST).all()
  assert (step.discount == 1.0).all()
  assert (batch.step(np.zeros((2, 1))).step_type == FIRST).all()


def test_unknown_task():
  with pytest.raises(ValueError, match="'cartpole/swingup'"):
    environments.make("control:cartpole/swing_up", seed=0)


def test_tasks_without_bounds_get_them():
  """lqr has neither bounds on its controls nor a time limit."""
  environment = control.load("lqr/lqr_2_1", seed=0)
  spec = environment.action_spec()
  np.testing.assert_array_equal([spec.minimum, spec.maximum], [-1, 1])
  environment.reset()
  for number in range(1, 1001):
    step = environment.step(np.full(spec.shape, 0.3))
    assert step.last() == (number == 1000)
  assert step.discount == 1.0


def test_action_repeat():
  """Rewards add up, and physics and the end are those of single steps."""
  name = "control:cheetah/run"
  environment = environments.make(name, 3, action_repeat=4)
  batch = environments.make_batched(name, 1, 3, action_repeat=4)
  assert batch.action_repeat == 4
  bare = environments.make(name, 3)
  environment.reset()
  bare.reset()
  for action in actions(bare.action_spec(), 250):
    step = environment.step(action)
    single = [bare.step(action) for _ in range(4)]
    np.testing.assert_allclose(
      step.reward, sum(s.reward for s in single), rtol=1e-6
    )
    np.testing.assert_array_equal(step.observation, single[-1].observation)
    assert step.step_type == single[-1].step_type
  assert step.last() and step.discount == 1.0
  with pytest.raises(ValueError, match="action_repeat must be"):
    environments.make("control:cheetah/run", 3, action_repeat=0)


class Ends(dm_env.Environment):
  """Rewards 1, 2, ...; ends at the fifth step in a terminal state."""

  def reset(self):
    self.count = 0
    return dm_env.restart(np.zeros(1))

  def step(self, action):
    if self.count == 5:
      return self.reset()
    self.count += 1
    if self.count == 5:
      return dm_env.termination(5.0, np.zeros(1))
    return dm_env.transition(float(self.count), np.zeros(1), 0.5)

  observation_spec = action_spec = None


def test_action_repeat_ends_with_the_episode():
  environment = wrappers.ActionRepeat(Ends(), 3)
  environment.reset()
  # The discounts between the single steps count.
  first, last = environment.step(0), environment.step(0)
  assert (first.reward, first.discount) == (1 + 0.5 * 2 + 0.25 * 3, 0.125)
  assert (last.reward, last.discount, last.last()) == (4 + 0.5 * 5, 0.0, True)
  assert environment.step(0).first()


@needs_renderer
def test_pixels():
  """Images are those of the suite; rewards and the end are not touched."""
  bare = suite.load("cartpole", "swingup", task_kwargs={"random": 3})
  options = {"height": 60, "width": 84, "frame_stack": 3, "action_repeat": 2}
  batch = environments.make_batched(
    "control_pixels:cartpole/swingup", 2, seed=3, **options
  )
  spec = batch.observation_spec()
  assert (spec.shape, spec.dtype) == ((60, 84, 9), np.uint8)
  assert batch.action_repeat == 2
  bare.reset()
  mine = batch.reset()

  def image():
    return bare.physics.render(60, 84, camera_id=0).astype(int)

  images = [image()] * 3
  for action in actions(bare.action_spec(), 5):
    stacked = np.concatenate(images[-3:], axis=-1)
    # Shadows are coarser.
    difference = np.abs(mine.observation[0] - stacked)
    assert difference.mean() < 0.2 and np.mean(difference > 16) < 0.01
    mine = batch.step(np.stack([action, action]))
    reward = sum(bare.step(action).reward for _ in range(2))
    np.testing.assert_allclose(mine.reward[0], reward, rtol=1e-6)
    images.append(image())
  # Something moves, and the members differ.
  assert np.any(mine.observation[0, ..., :3] != mine.observation[0, ..., 6:])
  assert np.any(mine.observation[0] != mine.observation[1])
  with pytest.raises(ValueError, match="frame_stack must be"):
    environments.make("control_pixels:cartpole/swingup", 0, frame_stack=0)
  with pytest.raises(ValueError, match="height must be a whole number"):
    environments.make("control_pixels:cartpole/swingup", 0, height=0)
  with pytest.raises(ValueError, match="one of its 2, got 9"):
    environments.make("control_pixels:cartpole/swingup", 0, camera_id=9)
  # The suite's own buffer is smaller.
  large = environments.make("control_pixels:cartpole/swingup", 0, height=700)
  assert large.reset().observation.shape == (700, 84, 3)


def test_nothing_to_draw_with(monkeypatch):
  def fail(*args, **kwargs):
    raise RuntimeError("no display")

  monkeypatch.setattr(
    "dm_control.mujoco.engine.Physics.render", fail
  )
  with pytest.raises(ValueError, match="libegl1"):
    environments.make("control_pixels:cartpole/swingup", 0)


@needs_renderer
@pytest.mark.parametrize("name,options", [
  ("control:cartpole/swingup", {}),
  ("control_pixels:cartpole/swingup", {"height": 20, "width": 30}),
  # A level compiles new physics with every episode.
  ("rwrl:cartpole/swingup/hard", {}),
])
def test_the_first_member_is_drawn(name, options):
  batch = environments.make_batched(name, 2, seed=0, **options)
  batch.reset()
  first = batch.render().copy()
  assert first.shape == (240, 320, 3) and first.dtype == np.uint8
  np.testing.assert_array_equal(batch.render(), first)
  spec = batch.action_spec()
  push = np.stack([spec.maximum, spec.minimum])
  for _ in range(30):
    batch.step(push)
  moved = batch.render().copy()
  assert np.abs(moved.astype(int) - first).max() > 30
  # The other member went the other way.
  other = environments.make_batched(name, 2, seed=0, **options)
  other.reset()
  for _ in range(30):
    other.step(push[::-1])
  assert np.abs(other.render().astype(int) - moved).max() > 30
  if name.startswith("rwrl"):
    batch.reset()
    assert np.any(batch.render() != moved)


@needs_renderer
def test_cameras(monkeypatch):
  """Of a quadruped the one that is near; of pixels the one that is chosen."""
  cameras = []

  def draw(physics, level, camera_id):
    cameras.append((level, camera_id))

  monkeypatch.setattr(control, "draw", draw)
  for name, options in (
    ("control:quadruped/walk", {}), ("control:cheetah/run", {}),
    ("rwrl:quadruped/walk/none", {}),
    ("control_pixels:cheetah/run", {"camera_id": 1}),
  ):
    environments.make_batched(name, 1, seed=0, **options).render()
  assert cameras == [
    ("quadruped/walk", 2), ("cheetah/run", 0), ("quadruped/walk/none", 2),
    ("cheetah/run", 1),
  ]
