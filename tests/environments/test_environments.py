import json

import dm_env
import gymnasium
import jax
import numpy as np
import pytest
from dm_env import specs

from acme_stac import environments
from acme_stac.config import STACConfig
from acme_stac.networks.actions import make_action_space
from tests.support import playing

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


@pytest.mark.parametrize("name", NAMES)
def test_steps_follow_specs_and_episodes(name):
  environment = environments.make_batched(name, 3, seed=0)
  trace = playing.play(environment, 60)
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
    trace = playing.play(environment, 40)
    environment.close()
    return np.stack([step.observation for step in trace])

  first = observations(1)
  np.testing.assert_array_equal(first, observations(1))
  assert np.any(first != observations(2))
  assert np.any(first[:, 0] != first[:, 1])


def test_a_second_reset_does_not_repeat_the_first():
  for name in NAMES:
    environment = environments.make_batched(name, 4, seed=0)
    starts = [np.array(environment.reset().observation) for _ in range(3)]
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
  away = playing.play(environments.make_batched("catch", 64, 0), 9, actions=[
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


@pytest.mark.parametrize(
  "name,message",
  [
    ("atar:pong", "Did you mean 'atari'"),
    ("atari:pongg", "Did you mean 'pong'"),
    ("gymnasium:CartPole-v9", "Did you mean 'CartPole-v1'"),
    ("catch:deep", "no levels"),
    ("", "Known: atari, catch, control, control_pixels, gymnasium, gymnax"),
  ],
)
def test_unknown_names(name, message):
  with pytest.raises(ValueError, match=message):
    environments.make(name, seed=0)


@pytest.mark.parametrize(
  "name,options,message",
  [
    (
      "atari:pong", {"sticky_action": 0.2},
      "'atari:pong': 'sticky_action'. Did you mean 'sticky_action_probability'",
    ),
    ("atari:pong", {"sticky_action_probability": 1.5}, r" in \[0, 1\)"),
    ("atari:pong", {"sticky_action_probability": "0.1"}, "must be of type flo"),
    ("atari:pong", {"life_loss_is_terminal": "no"}, "must be of type bool"),
    ("atari:pong", {"max_noops": 1.5}, "must be of type int, got 1.5"),
    ("atari:pong", {"max_noops": -1}, "at least 0.*, got -1"),
    ("atari:pong", {"max_frames_per_episode": -5}, "at least 0.*, got -5"),
    ("catch", {"row": 3}, "Did you mean 'rows'"),
    ("catch", {"rows": 0}, "rows must be a whole number of at least 2"),
    ("gymnasium:Pendulum-v1", {"length": 1}, "unexpected keyword .*'length'"),
    ("control:cheetah/run", {"action_repeat": 2.5}, "must be of type int"),
    ("control_pixels:cheetah/run", {"frame_stack": "3"}, "must be of type int"),
    ("rwrl:walker/walk/none", {"exact": "yes"}, "must be of type bool"),
    ("catch", {"num_environments": 0}, "num_environments must .* at least 1"),
    ("catch", {"seed": -1}, "seed must be .* at least 0"),
    ("catch", {"seed": 2**31}, "at most"),
    ("catch", {"seed": 0.5}, "seed must be a whole number"),
  ],
)
def test_bad_options(name, options, message):
  with pytest.raises(ValueError, match=message):
    environments.make_batched(
      name, **{"num_environments": 1, "seed": 0, **options}
    )


def test_numpy_scalars_are_numbers():
  environment = environments.make_batched(
    "rwrl:cartpole/swingup/none", 1, seed=np.int64(3),
    action_delay=np.int64(2), action_noise=np.float32(0.5),
    reward_delay=1, observation_noise=1,
  )
  assert environment.reset().step_type == [0]


@pytest.mark.parametrize("name", ["catch", "atari:breakout"])
def test_actions_that_are_none(name):
  environment = environments.make_batched(name, 3, seed=0)
  environment.reset()
  for actions in (
    np.full(3, 99), np.full(3, -1), np.full(3, np.nan), np.array(1),
    np.zeros(1, int), np.zeros((3, 1), int),
  ):
    with pytest.raises(ValueError, match="Actions must be"):
      environment.step(actions)
  environment.step(np.zeros(3, np.int64))


@pytest.mark.parametrize(
  "name", ["FrozenLake-v1", "Blackjack-v1", "CliffWalking-v1"]
)
def test_discrete_observations(name):
  """Whole numbers and tuples of them are as their specs say."""
  environment = environments.make(f"gymnasium:{name}", seed=0)
  environments.check(environment)
  leaves = jax.tree_util.tree_leaves(environment.observation_spec())
  assert {leaf.dtype for leaf in leaves} <= {np.dtype("int32")}


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
  batch = environments.BatchOfEnvironments(members)
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
    environments.BatchOfEnvironments(
      [members[0], environments.make("gymnasium:CartPole-v1", seed=0)]
    )
  with pytest.raises(ValueError, match="at least one"):
    environments.BatchOfEnvironments([])


def test_options_of_gymnasium():
  """They reach the constructor: ice that is not slippery is deterministic."""
  environment = environments.make_batched(
    "gymnasium:FrozenLake-v1", 16, seed=0, is_slippery=False
  )
  environment.reset()
  # Right of the first of four columns.
  assert (environment.step(np.full(16, 2)).observation == 1).all()


def test_catch_is_drawn():
  environment = environments.make_batched("catch", 3, seed=0, rows=6)
  step = environment.reset()
  for _ in range(12):
    picture = environment.render()
    assert picture.shape == (240, 200, 3) and picture.dtype == np.uint8
    # Cells of 40 pixels: those that differ from most are ball and paddle.
    cells = picture[::40, ::40]
    np.testing.assert_array_equal(
      np.any(cells != cells.min((0, 1)), axis=-1), step.observation[0] == 1
    )
    np.testing.assert_array_equal(
      picture, cells.repeat(40, axis=0).repeat(40, axis=1)
    )
    step = environment.step(np.array([1, 0, 2]))
  # As one that is to be the member of another batch.
  single = environments.make("catch", seed=0)
  single.reset()
  batch = environments.BatchOfEnvironments([single])
  assert batch.render().shape == (240, 120, 3)


class Drawn(gymnasium.Env):
  """Draws what it observes."""

  metadata = {"render_modes": ["rgb_array"]}
  observation_space = gymnasium.spaces.Box(0.0, 255.0, ())
  action_space = gymnasium.spaces.Discrete(2)

  def __init__(self, render_mode=None):
    self.render_mode = render_mode

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._number = self.np_random.integers(100)
    return np.float32(self._number), {}

  def step(self, action):
    self._number += 1
    return np.float32(self._number), 0.0, False, False, {}

  def render(self):
    return np.full((2, 3, 3), self._number, np.uint8)


def test_gymnasium_draws_the_first_member(monkeypatch):
  name = "gymnasium:acme_stac_tests/Drawn-v0"
  gymnasium.register("acme_stac_tests/Drawn-v0", Drawn)
  monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
  environment = environments.make_batched(
    name, 2, seed=0, render_mode="rgb_array"
  )
  for number in range(3):
    step = environment.step(np.zeros(2, int)) if number else (
      environment.reset()
    )
    assert step.observation[0] != step.observation[1]
    expected = np.full((2, 3, 3), step.observation[0], np.uint8)
    np.testing.assert_array_equal(environment.render(), expected)
  environment = environments.make_batched(name, 2, seed=0)
  environment.reset()
  with pytest.raises(NotImplementedError, match="render_mode='rgb_array'"):
    environment.render()


def test_cartpole_is_drawn(monkeypatch):
  pytest.importorskip("pygame")
  monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
  environment = environments.make_batched(
    "gymnasium:CartPole-v1", 1, seed=0, render_mode="rgb_array"
  )
  environment.reset()
  before = environment.render()
  assert before.shape == (400, 600, 3) and before.dtype == np.uint8
  environment.step(np.ones(1, int))
  environment.step(np.ones(1, int))
  assert np.any(environment.render() != before)


def test_not_every_environment_can_be_drawn():
  class Undrawn(dm_env.Environment):
    def reset(self):
      return dm_env.restart(np.zeros(1, np.float32))

    step = reset

    def observation_spec(self):
      return specs.Array((1,), np.float32)

    def action_spec(self):
      return specs.DiscreteArray(2)

  batch = environments.make_batched(lambda seed: Undrawn(), 1, seed=0)
  with pytest.raises(NotImplementedError, match="Undrawn has no method render"):
    batch.render()
  guarded = environments.GuardedEnvironment(batch)
  with pytest.raises(NotImplementedError, match="GuardedEnvironment has no"):
    guarded.render()


class Unlimited(dm_env.Environment):
  """Goes on for ever; what is to end it does so."""

  def __init__(self, seed=0):
    self.count = seed

  def reset(self):
    self.count = 0
    return dm_env.restart(np.float32([0]))

  def step(self, action):
    self.count += 1
    return dm_env.transition(
      np.float32(1), np.float32([self.count]), np.float32(1)
    )

  def observation_spec(self):
    return specs.Array((1,), np.float32)

  def action_spec(self):
    return specs.DiscreteArray(2, np.int64)

  def reward_spec(self):
    return specs.Array((), np.float32)


class Ending(Unlimited):
  """Ends after five steps, and must be told to begin."""

  def step(self, action):
    timestep = super().step(action)
    if self.count < 5:
      return timestep
    assert self.count == 5, "reset comes first"
    return dm_env.termination(np.float32(1), timestep.observation)


def test_members_need_not_restart_by_themselves():
  """As Acme's loop does, a member is reset after its last step."""
  acme_wrappers = pytest.importorskip("acme.wrappers")
  makers = [
    lambda seed: acme_wrappers.StepLimitWrapper(Unlimited(seed), 5),
    lambda seed: acme_wrappers.ObservationActionRewardWrapper(Ending(seed)),
    Ending,
  ]
  for make in makers:
    batch = environments.make_batched(make, 2, seed=0)
    environments.check(batch)
    guarded = environments.GuardedEnvironment(batch)
    steps = [guarded.reset()]
    steps += [guarded.step(np.zeros(2, np.int64)) for _ in range(12)]
    assert [step.step_type[1] for step in steps] == [
      FIRST, MID, MID, MID, MID, LAST, FIRST, MID, MID, MID, MID, LAST, FIRST,
    ]
    assert sum(step.reward[0] for step in steps) == 10
    single = environments.make(make, seed=0)
    types = [single.step(0).step_type for _ in range(8)]
    assert types == [FIRST, MID, MID, MID, MID, LAST, FIRST, MID]


def test_repeated_actions_of_acme_end_with_the_episode():
  acme_wrappers = pytest.importorskip("acme.wrappers")
  batch = environments.make_batched(
    lambda seed: acme_wrappers.ActionRepeatWrapper(Ending(seed), 2), 2, seed=0
  )
  environments.check(batch)
  batch.reset()
  steps = [batch.step(np.zeros(2, np.int64)) for _ in range(5)]
  assert [step.reward[0] for step in steps] == [2, 2, 1, 0, 2]
  assert [step.step_type[0] for step in steps] == [MID, MID, LAST, FIRST, MID]


@pytest.mark.parametrize("dtype", [
  f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
])
def test_whole_numbers_of_every_type_are_chosen(dtype):
  """The agent's choices reach the environment in its type, files included."""
  spec = specs.DiscreteArray(5, np.dtype(dtype))
  observations = specs.Array((2,), np.float32)
  described = json.loads(json.dumps(environments.spec_to_json(
    environments.EnvironmentSpec(observations, spec, None, None)
  )))
  read = environments.spec_from_json(described).actions
  assert (read.num_values, read.dtype) == (5, np.dtype(dtype))
  for one in (spec, read):
    actions = make_action_space(one, STACConfig()).to_environment(
      np.arange(5, dtype=np.int32)
    )
    assert actions.dtype == np.dtype(dtype)
    assert actions.tolist() == [0, 1, 2, 3, 4]


OBSERVATIONS = {
  "place": specs.DiscreteArray(32, np.int32),
  "start": specs.BoundedArray((), np.int32, 2, 5),
  "several": specs.BoundedArray((2,), np.int8, [0, 1], [3, 4]),
  "image": specs.BoundedArray((64, 64, 3), np.uint8, 0, 255),
  "open": specs.BoundedArray((2,), np.float32, [-np.inf, 0.0], np.inf),
  "nothing": specs.BoundedArray((0,), np.float32, np.zeros(0), np.ones(0)),
  "free": (specs.Array((3,), np.float32),),
}


def described(observations):
  spec = environments.EnvironmentSpec(
    observations, specs.DiscreteArray(2), None, None
  )
  json_spec = environments.spec_to_json(spec)
  return json.loads(json.dumps(json_spec, allow_nan=False))


def test_files_have_the_bounds_of_observations():
  spec = described(OBSERVATIONS)
  read = environments.spec_from_json(spec).observations
  assert read.keys() == OBSERVATIONS.keys()
  for name, leaf in OBSERVATIONS.items():
    assert read[name] == leaf
    assert type(read[name]) is type(leaf)
  # Equal bounds of many pixels take no room.
  image = described(specs.BoundedArray(
    (64, 64, 3), np.uint8, np.zeros((64, 64, 3)), np.full((64, 64, 3), 255)
  ))
  assert len(json.dumps(image)) < 200


@pytest.mark.parametrize("part,leaf,fits", [
  ("place", specs.DiscreteArray(16, np.int32), False),
  ("place", specs.DiscreteArray(32, np.int64), True),
  ("place", specs.Array((), np.int32), False),
  ("image", specs.BoundedArray((64, 64, 3), np.uint8, 0, 1), False),
  ("open", specs.Array((2,), np.float32), True),
  ("open", specs.BoundedArray((2,), np.float64, 0, 1), True),
  ("open", specs.Array((3,), np.float32), False),
  ("free", [specs.Array((3,), np.float32)], True),
  ("free", specs.Array((3,), np.float32), False),
])
def test_policies_take_observations_that_mean_the_same(part, leaf, fits):
  other = described({**OBSERVATIONS, part: leaf})
  assert environments.observations_fit(other, described(OBSERVATIONS)) == fits
  if part in ("place", "image") and other != described(OBSERVATIONS):
    # A file of an older version does not say.
    before = environments.without_bounds(
      environments.spec_from_json(described(OBSERVATIONS))
    )
    assert environments.observations_fit(other, described(before.observations))
