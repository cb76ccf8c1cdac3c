import dm_env
import numpy as np
import pytest
from dm_control import suite
from dm_env import specs

from acme_stac import environments
from acme_stac.environments import base

FIRST, MID, LAST = (
  dm_env.StepType.FIRST,
  dm_env.StepType.MID,
  dm_env.StepType.LAST,
)
NAMES = [
  "catch",
  "gymnasium:CartPole-v1",
  "gymnasium:Acrobot-v1",
  "gymnasium:Pendulum-v1",
  "atari:pong",
  "control:cartpole/swingup",
  "rwrl:walker/walk/hard",
]


def play(environment, steps, seed=0, actions=None):
  rng = np.random.default_rng(seed)
  spec = environment.action_spec()
  members = environment.num_environments

  def random_action():
    if isinstance(spec, specs.DiscreteArray):
      return rng.integers(0, spec.num_values, members)
    size = (members, *spec.shape)
    return rng.uniform(spec.minimum, spec.maximum, size).astype(spec.dtype)

  trace = [environment.reset()]
  for t in range(steps):
    step = environment.step(random_action() if actions is None else actions[t])
    trace.append(step._replace(observation=np.array(step.observation)))
  return trace


@pytest.mark.parametrize("name", NAMES)
def test_steps_follow_specs_and_episodes(name):
  environment = environments.make_batched(name, 3, seed=0)
  trace = play(environment, 60)
  spec = environment.observation_spec()
  assert (trace[0].step_type == FIRST).all()
  for before, step in zip(trace[:-1], trace[1:], strict=True):
    assert step.observation.shape == (3, *spec.shape)
    assert step.observation.dtype == spec.dtype
    for member in range(3):
      spec.validate(step.observation[member])
    assert step.reward.dtype == step.discount.dtype == np.float32
    # FIRST comes exactly after LAST.
    np.testing.assert_array_equal(
      step.step_type == FIRST, before.step_type == LAST
    )
    assert not step.reward[step.step_type == FIRST].any()
  environment.close()


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name):
  def observations(seed):
    environment = environments.make_batched(name, 2, seed=seed)
    trace = play(environment, 40)
    environment.close()
    return np.stack([step.observation for step in trace])

  np.testing.assert_array_equal(observations(1), observations(1))
  assert np.any(observations(1) != observations(2))
  assert np.any(observations(1)[:, 0] != observations(1)[:, 1])


def test_a_second_reset_does_not_repeat_the_first():
  for name in NAMES:
    environment = environments.make_batched(name, 4, seed=0)
    starts = [np.array(environment.reset().observation) for _ in range(4)]
    assert any(np.any(starts[0] != other) for other in starts[1:]), name


def test_catch_rules():
  environment = environments.make_batched("catch", 64, seed=0)
  step = environment.reset()
  assert (step.observation.sum((1, 2)) == 2).all()
  for _ in range(9):
    # Towards the ball: always caught.
    ball = step.observation[:, :-1].sum(1).argmax(-1)
    paddle = step.observation[:, -1].argmax(-1)
    step = environment.step(np.sign(ball - paddle) + 1)
  assert (step.step_type == LAST).all()
  np.testing.assert_array_equal(step.reward, 1.0)
  np.testing.assert_array_equal(step.discount, 0.0)
  away = play(environments.make_batched("catch", 64, 0), 9, actions=[
    np.zeros(64, int)] * 9)
  landed_left = away[8].observation[:, -2, 0] == 1
  np.testing.assert_array_equal(away[9].reward, np.where(landed_left, 1, -1))


def test_cartpole_time_limit_bootstraps():
  """A policy that balances reaches 500 steps: LAST with discount 1."""
  environment = environments.make_batched("gymnasium:CartPole-v1", 8, seed=0)
  step = environment.reset()
  lengths = np.zeros(8, int)
  limits = 0
  for _ in range(1100):
    x, v, angle, rate = step.observation.T
    step = environment.step(
      (angle + 0.5 * rate + 0.05 * v + 0.02 * x > 0).astype(int)
    )
    lengths = np.where(step.step_type == FIRST, 0, lengths + 1)
    for member in np.flatnonzero(step.step_type == LAST):
      if lengths[member] == 500:
        assert step.discount[member] == 1.0
        limits += 1
      else:
        assert step.discount[member] == 0.0
  assert limits > 0


def test_atari_frames_against_a_plain_emulator():
  """Skip of 4, maximum of the last two, grey, 84×84 area, stack of 4."""
  import ale_py
  import cv2
  from ale_py import roms

  environment = environments.make_batched(
    "atari:breakout", 1, seed=0, max_noops=0
  )
  rng = np.random.default_rng(0)
  actions = rng.integers(0, 4, (60, 1))
  trace = play(environment, 60, actions=actions)
  ale = ale_py.ALEInterface()
  ale.setInt("random_seed", 0)
  ale.setFloat("repeat_action_probability", 0.0)
  ale.loadROM(roms.get_rom_path("breakout"))
  minimal = ale.getMinimalActionSet()

  def preprocess(frames):
    frame = np.maximum(*frames[-2:])
    return cv2.resize(frame, (84, 84), interpolation=cv2.INTER_AREA)

  for t, action in enumerate(actions[:, 0]):
    frames, reward = [], 0
    for _ in range(4):
      reward += ale.act(minimal[action])
      frames.append(ale.getScreenGrayscale())
    assert trace[t + 1].reward[0] == reward
    difference = np.abs(
      preprocess(frames).astype(int) - trace[t + 1].observation[0, -1]
    )
    assert difference.max() <= 1
    np.testing.assert_array_equal(
      trace[t + 1].observation[0, :-1], trace[t].observation[0, 1:]
    )


def test_atari_rewards_are_raw():
  environment = environments.make_batched("atari:space_invaders", 4, seed=0)
  rewards = np.stack([step.reward for step in play(environment, 400)])
  assert rewards.max() > 1.0


@pytest.mark.parametrize("terminal", [True, False])
def test_atari_life_loss(terminal):
  """A lost life may end the return that is learned, never the game."""
  environment = environments.make_batched(
    "atari:breakout", 2, seed=0, life_loss_is_terminal=terminal
  )
  trace = play(environment, 400)
  discounts = np.stack([step.discount for step in trace])
  types = np.stack([step.step_type for step in trace])
  games = (types == LAST).sum()
  lives = ((discounts == 0) & (types != LAST)).sum()
  assert games > 0
  # Breakout has five lives: four are lost before the one that ends the game.
  assert lives >= 4 * games if terminal else lives == 0
  assert (discounts[types == LAST] == 0).all()


def test_atari_time_limit_is_a_truncation():
  environment = environments.make_batched(
    "atari:pong", 1, seed=0, max_frames_per_episode=100, max_noops=0
  )
  trace = play(environment, 60)
  last = [t for t, step in enumerate(trace) if step.step_type[0] == LAST]
  assert last[:2] == [25, 51]
  assert all(trace[t].discount[0] == 1.0 for t in last)


def test_atari_options():
  environment = environments.make_batched(
    "atari:pong", 1, seed=0, full_action_set=True
  )
  assert environment.action_spec().num_values == 18
  assert environment.action_repeat == 4
  actions = [np.array([t % 6]) for t in range(100)]

  def frames(probability):
    sticky = environments.make_batched(
      "atari:pong", 1, seed=3, sticky_action_probability=probability
    )
    return np.stack([s.observation for s in play(sticky, 100, actions=actions)])

  assert np.any(frames(0.25) != frames(0.0))


def test_no_ops_differ_between_members():
  def starts(**options):
    environment = environments.make_batched(
      "atari:space_invaders", 8, seed=0, **options
    )
    return {x.tobytes() for x in environment.reset().observation}

  assert len(starts()) > 1
  assert len(starts(max_noops=0)) == 1


@pytest.mark.parametrize(
  "name,message",
  [
    ("atar:pong", "Did you mean 'atari'"),
    ("atari:pongg", "Did you mean 'pong'"),
    ("gymnasium:CartPole-v9", "Did you mean 'CartPole-v1'"),
    ("catch:deep", "no levels"),
    ("", "Known: atari, catch, control, gymnasium"),
  ],
)
def test_unknown_names(name, message):
  with pytest.raises(ValueError, match=message):
    environments.make(name, seed=0)


def test_bad_options():
  with pytest.raises(ValueError, match="unexpected keyword argument 'stick'"):
    environments.make("atari:pong", seed=0, stick=0.2)
  with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
    environments.make("atari:pong", seed=0, sticky_action_probability=1.5)
  with pytest.raises(ValueError, match="at least 1"):
    environments.make_batched("catch", 0, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_is_a_dm_env_environment(name):
  """The bridge keeps dm_env's contract, and a batch of it is the batch."""
  single = environments.make(name, seed=5)
  spec = single.action_spec()
  # Starts an episode, as dm_env asks.
  step = single.step(spec.generate_value())
  assert step.first() and step.reward is None and step.discount is None
  batch = environments.make_batched(name, 1, seed=5)
  batch.reset()
  for t in range(50):
    if isinstance(spec, specs.DiscreteArray):
      action = t % spec.num_values
    else:
      action = spec.minimum + (t % 5) / 4 * (spec.maximum - spec.minimum)
    step = single.step(action)
    many = batch.step(np.array([action]))
    np.testing.assert_array_equal(step.observation, many.observation[0])
    assert step.step_type == many.step_type[0]
    if not step.first():
      assert step.reward == many.reward[0]
      assert step.discount == many.discount[0]


def test_batch_of_environments():
  members = [environments.make("catch", seed=s) for s in range(3)]
  batch = base.BatchOfEnvironments(members)
  singles = [environments.make("catch", seed=s) for s in range(3)]
  step = batch.reset()
  expected = [single.reset() for single in singles]
  for t in range(30):
    np.testing.assert_array_equal(
      step.observation, np.stack([s.observation for s in expected])
    )
    np.testing.assert_array_equal(
      step.reward, [s.reward or 0.0 for s in expected]
    )
    actions = np.full(3, t % 3)
    step = batch.step(actions)
    expected = [single.step(t % 3) for single in singles]
  with pytest.raises(ValueError, match="equal specs"):
    base.BatchOfEnvironments(
      [members[0], environments.make("gymnasium:CartPole-v1", seed=0)]
    )
  with pytest.raises(ValueError, match="at least one"):
    base.BatchOfEnvironments([])


@pytest.mark.parametrize("level", ["cartpole/swingup", "humanoid/walk"])
def test_control_is_the_bare_suite(level):
  """Rewards, discounts and features of the same actions are the suite's."""
  domain, task = level.split("/")
  bare = suite.load(domain, task, task_kwargs={"random": 3})
  batch = environments.make_batched(f"control:{level}", 1, seed=3)
  spec = bare.action_spec()
  rng = np.random.default_rng(0)
  steps, mine = [bare.reset()], [batch.reset()]
  for _ in range(30):
    action = rng.uniform(spec.minimum, spec.maximum)
    steps.append(bare.step(action))
    mine.append(batch.step(action[None]))
  for expected, step in zip(steps, mine, strict=True):
    assert step.step_type[0] == expected.step_type
    features = np.concatenate(
      [np.ravel(x) for x in expected.observation.values()]
    )
    np.testing.assert_allclose(step.observation[0], features, rtol=1e-6)
    np.testing.assert_allclose(step.reward[0], expected.reward or 0.0)
    assert step.discount[0] == 1.0


def test_control_time_limit_bootstraps():
  batch = environments.make_batched("control:cartpole/balance", 2, seed=0)
  batch.reset()
  for _ in range(999):
    step = batch.step(np.zeros((2, 1)))
    assert (step.step_type == MID).all()
  step = batch.step(np.zeros((2, 1)))
  assert (step.step_type == LAST).all()
  assert (step.discount == 1.0).all()
  assert (batch.step(np.zeros((2, 1))).step_type == FIRST).all()


def test_unknown_control_task():
  with pytest.raises(ValueError, match="'cartpole/swingup'"):
    environments.make("control:cartpole/swing_up", seed=0)
