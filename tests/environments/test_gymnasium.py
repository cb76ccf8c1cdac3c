"""Environments of Gymnasium, as others write them."""

import sys
import warnings

import dm_env
import gymnasium
import numpy as np
import pytest
from dm_env import specs
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from acme_stac import environments
from acme_stac.environments import gymnasium as family
from tests.support import playing

FIRST, MID, LAST = (
  dm_env.StepType.FIRST,
  dm_env.StepType.MID,
  dm_env.StepType.LAST,
)


class Counting(gymnasium.Env):
  """Observes the number of its step; episodes of four steps."""

  observation_space: gymnasium.Space = spaces.Box(0, 9, (1,))
  action_space: gymnasium.Space = spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.count = 0
    return self.observation(), {}

  def observation(self):
    return np.float32([self.count])

  def step(self, action):
    self.count += 1
    return self.observation(), self.count, self.count == 4, False, {}


@pytest.fixture
def register(monkeypatch):
  """Returns what registers a class and returns the environment's name."""
  monkeypatch.setattr(
    gymnasium.envs.registration, "registry", dict(gymnasium.registry)
  )
  monkeypatch.setattr(
    gymnasium, "registry", gymnasium.envs.registration.registry
  )

  def do(entry_point, **kwargs):
    gymnasium.register("Tested-v0", entry_point, **kwargs)
    return "gymnasium:Tested-v0"

  return do


def changed(**members):
  return type("Changed", (Counting,), members)


@pytest.mark.parametrize("name", family.EQUAL_VECTORS)
def test_vector_implementations_in_use_are_the_same_environment(name):
  """Step by step, episode ends and limits included, from the same states."""
  vector = gymnasium.make_vec(
    name, 8, vectorization_mode="vector_entry_point"
  )
  singles = [gymnasium.make(name) for _ in range(8)]
  rng = np.random.default_rng(0)
  vector.reset(seed=0)

  def begin(member):
    singles[member].reset()
    state = vector.unwrapped.state[:, member]
    singles[member].unwrapped.state = state.copy()

  for member in range(8):
    begin(member)
  ended = np.zeros(8, bool)
  ends = limits = 0
  for _ in range(700):
    actions = rng.integers(2, size=8)
    # One balances, so that it meets the limit.
    x, v, angle, rate = vector.unwrapped.state[:, 0]
    actions[0] = angle + 0.5 * rate + 0.05 * v + 0.02 * x > 0
    observation, reward, terminated, truncated, _ = vector.step(actions)
    for member in range(8):
      if ended[member]:
        begin(member)
        continue
      expected = singles[member].step(actions[member])
      np.testing.assert_allclose(observation[member], expected[0], 1e-5)
      assert reward[member] == expected[1]
      assert terminated[member] == expected[2]
      assert truncated[member] == expected[3]
    ended = terminated | truncated
    ends += terminated.sum()
    limits += truncated.sum()
  assert ends > 10 and limits > 0
  batch = environments.make_batched(f"gymnasium:{name}", 8, seed=0)
  assert not isinstance(batch, environments.BatchOfEnvironments)


class CountingVector(gymnasium.vector.VectorEnv):
  """A vector implementation of `Counting` that counts in tens."""

  single_observation_space = Counting.observation_space
  single_action_space = Counting.action_space

  def __init__(self, num_envs=1, mode=None, final=False):
    self.num_envs = num_envs
    self.metadata = {} if mode is None else {"autoreset_mode": mode}
    self._final = final

  def reset(self, *, seed=None, options=None):
    self.count = np.arange(self.num_envs)
    return np.float32(10 * self.count[:, None]), {}

  def step(self, actions):
    ended = self.count == 4
    self.count = np.where(ended, 0, self.count + 1)
    done = self.count == 4
    info = {"final_obs": None} if self._final and done.any() else {}
    return (
      np.float32(10 * self.count[:, None]), 1.0 * ~ended, done,
      np.zeros_like(done), info,
    )


def test_an_id_is_its_own_environment(register):
  """Not the vector implementation that it brings, unless that is asked for."""
  name = register(Counting, vector_entry_point=CountingVector)
  trace = playing.play(environments.make_batched(name, 2, seed=0), 8)
  assert [step.observation[0, 0] for step in trace] == [
    0, 1, 2, 3, 4, 0, 1, 2, 3,
  ]
  vector = environments.make_batched(
    name, 2, seed=0, vectorization_mode="vector_entry_point",
    autoreset_mode="NextStep",
  )
  assert vector.reset().observation[1] == 10
  with pytest.raises(ValueError, match="vectorization_mode must be 'sync' or"):
    environments.make_batched(name, 2, seed=0, vectorization_mode="fast")


def test_atari_by_gymnasiums_id_is_gymnasiums_atari():
  """Colours of the whole screen and the game's own points."""
  batch = environments.make_batched(
    "gymnasium:ale_py:ALE/MsPacman-v5", 1, seed=0
  )
  assert batch.observation_spec().shape == (210, 160, 3)
  assert max(step.reward[0] for step in playing.play(batch, 100)) == 10.0


@pytest.mark.parametrize(
  "mode", [AutoresetMode.NEXT_STEP, "NextStep"]
)
@pytest.mark.parametrize("stated", [True, False])
def test_vectors_that_reset_in_the_next_step_keep_every_transition(
  register, mode, stated
):
  """The mode is stated by the environment, or by the user."""
  name = register(None, vector_entry_point=CountingVector)
  if not stated:
    mode = str(getattr(mode, "value", mode))
  batch = environments.make_batched(
    name, 3, seed=0, **{"mode" if stated else "autoreset_mode": mode}
  )
  trace = playing.play(batch, 12)
  for member in range(3):
    steps = [
      (int(step.observation[member, 0]), int(step.step_type[member]))
      for step in trace
    ]
    assert steps[4 - member : 10 - member] == [
      (40, LAST), (0, FIRST), (10, MID), (20, MID), (30, MID), (40, LAST),
    ]


@pytest.mark.parametrize("options,message", [
  ({}, "does not state when it resets .* autoreset_mode=NextStep"),
  ({"mode": AutoresetMode.SAME_STEP}, "SameStep. Only NextStep is supported"),
  ({"mode": "Disabled"}, "Disabled. Only NextStep"),
  ({"autoreset_mode": "SameStep"}, "SameStep. Only NextStep"),
  ({"autoreset_mode": "NxtStep"}, "Did you mean 'NextStep'"),
])
def test_vectors_that_reset_otherwise_are_refused(register, options, message):
  name = register(None, vector_entry_point=CountingVector)
  with pytest.raises(ValueError, match=message):
    environments.make_batched(name, 3, seed=0, **options)


def test_a_mode_that_was_not_true_is_found_out(register):
  name = register(None, vector_entry_point=CountingVector)
  batch = environments.make_batched(
    name, 3, seed=0, autoreset_mode="NextStep", final=True
  )
  with pytest.raises(ValueError, match="reset members in the same step"):
    environments.check(batch)


def test_info_is_not_looked_at(register):
  """Arrays of other sizes in every step and member."""
  rng = np.random.default_rng(0)

  def step(self, action):
    info = {"seen": np.zeros(rng.integers(1, 9)), "n": [{}] * rng.integers(3)}
    return (*Counting.step(self, action)[:4], info)

  name = register(changed(step=step))
  batch = environments.make_batched(name, 4, seed=0)
  environments.check(batch)
  playing.play(batch, 30)


OBSERVED = spaces.Dict(
  discrete=spaces.Discrete(3),
  shifted=spaces.Discrete(3, start=-2),
  several=spaces.MultiDiscrete([3, 4], start=[1, 0]),
  grid=spaces.MultiDiscrete([[2, 2], [2, 9]]),
  wide=spaces.MultiDiscrete([2**40]),
  bits=spaces.MultiBinary([2, 2]),
  pair=spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.Discrete(2)]),
)


def test_spaces_are_specs(register):
  """Every value that a space has is as its spec says."""
  name = register(changed(
    observation_space=OBSERVED,
    # Most values of the wide one do not fit what networks take.
    observation=lambda self: {
      **self.observation_space.sample(), "wide": np.array([2**31 - 1])
    },
  ))
  batch = environments.make_batched(name, 2, seed=0)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    environments.check(batch)
  spec = batch.observation_spec()
  assert spec["discrete"] == specs.DiscreteArray(3)
  assert spec["shifted"] == specs.BoundedArray((), np.int32, -2, 0)
  assert spec["several"] == specs.BoundedArray((2,), np.int32, [1, 0], [3, 3])
  assert spec["grid"].maximum.tolist() == [[1, 1], [1, 8]]
  assert spec["wide"] == specs.BoundedArray((1,), np.int64, 0, 2**40 - 1)
  assert spec["bits"] == specs.BoundedArray((2, 2), np.int8, 0, 1)
  assert spec["pair"][1] == specs.DiscreteArray(2)


def test_choices_may_be_numbered_from_anywhere(register):
  taken = set()

  def step(self, action):
    taken.add((int(action), self.action_space.contains(action)))
    return Counting.step(self, action)

  name = register(changed(action_space=spaces.Discrete(3, start=5), step=step))
  batch = environments.make_batched(name, 2, seed=0)
  assert batch.action_spec() == specs.DiscreteArray(3)
  playing.play(batch, 30)
  assert taken == {(5, True), (6, True), (7, True)}


class Missions(gymnasium.Space):
  """As Minigrid's, which is no Text."""

  def __init__(self):
    super().__init__(dtype=str)

  def contains(self, x):
    return isinstance(x, str)


@pytest.mark.parametrize("name,space", [
  ("words", spaces.Text(20)), ("mission", Missions()),
])
def test_text_is_left_out_and_named(register, name, space):
  tested = register(changed(
    observation_space=spaces.Dict(
      {"image": spaces.Box(0, 255, (2, 2, 3), np.uint8), name: space}
    ),
    observation=lambda self: {
      "image": np.zeros((2, 2, 3), np.uint8), name: "go",
    },
  ))
  with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    batch = environments.make_batched(tested, 2, seed=0)
    environments.make_batched(tested, 2, seed=0)
  assert {str(warning.message) for warning in said} == {
    f"observation['{name}']: text, which networks here do not read, is left out"
    " of the observation."
  }
  environments.check(batch)
  assert batch.observation_spec().keys() == {"image"}


def test_numbers_of_any_kind_are_taken(register):
  """Lists, doubles, rewards and ends as arrays of one element."""

  def step(self, action):
    observation, reward, terminated, truncated, info = Counting.step(
      self, action
    )
    return (
      observation.tolist(), np.array([reward]), np.array([terminated]),
      np.bool_(truncated), info,
    )

  name = register(changed(step=step))
  batch = environments.make_batched(name, 2, seed=0)
  environments.check(batch)
  trace = playing.play(batch, 5)
  assert [step.reward[1] for step in trace] == [0, 1, 2, 3, 4, 0]


GRAPH = spaces.Graph(spaces.Box(-1, 1, (2,)), None)


@pytest.mark.parametrize("members,message", [
  (
    {"observation_space": spaces.Dict(a=GRAPH, b=Counting.observation_space)},
    r"observation\['a'\] is a Graph, whose size .*FilterObservation",
  ),
  (
    {"observation_space": spaces.Sequence(spaces.Discrete(2))},
    "observation is a Sequence",
  ),
  (
    {"observation_space": spaces.OneOf([spaces.Discrete(2)])},
    "observation is a OneOf",
  ),
  ({"observation_space": spaces.Text(9)}, "Nothing of the observation is a nu"),
  (
    {"observation_space": spaces.Tuple([spaces.Text(9), spaces.Discrete(2)])},
    "observation has text among its elements",
  ),
  (
    {"action_space": spaces.MultiDiscrete([2, 2])},
    "Several discrete choices at once",
  ),
  ({"action_space": spaces.MultiBinary(3)}, "Several discrete choices at once"),
  ({"action_space": OBSERVED}, "Actions must be one Box or one Discrete"),
  (
    {"step": lambda self, action: (np.zeros(1, "f"), 0.0, False, {})},
    r"step\(\) raised ValueError: not enough values to unpack .expected 5",
  ),
  (
    {"step": lambda self, action: (np.zeros(1, "f"), None, False, False, {})},
    "the reward must be one number, got None",
  ),
  (
    {"step": lambda self, action: (np.zeros(2, "f"), 0.0, False, False, {})},
    r"observation must have shape \(1,\), got \(2,\)",
  ),
  (
    {
      "observation_space": spaces.Discrete(3),
      "observation": lambda self: 0.5,
    },
    r"observation has 0\.5, which does not fit int32",
  ),
  (
    {"observation": lambda self: np.array([1e300])},
    r"observation has 1e\+300, which does not fit float32",
  ),
  (
    {
      "step": lambda self, action: (np.zeros(1, "f"), 1e300, False, False, {})
    },
    r"reward has 1e\+300, which does not fit float32",
  ),
  (
    {
      "observation_space": spaces.Dict(a=spaces.Discrete(3)),
      "observation": lambda self: {"b": 0},
    },
    r"observation's parts must be \['a'\], got \['b'\]",
  ),
])
def test_what_cannot_be_is_refused_in_words(register, members, message):
  name = register(changed(**members))
  with pytest.raises(ValueError, match=message):
    environments.check(environments.make_batched(name, 2, seed=0))


def test_packages_that_register_an_id_are_named(monkeypatch):
  monkeypatch.delitem(sys.modules, "ale_py", raising=False)
  monkeypatch.setattr(gymnasium, "registry", {})
  with pytest.raises(ValueError) as error:
    environments.make("gymnasium:ALE/Pong-v5", seed=0)
  assert "write gymnasium:ale_py:ALE/Pong-v5." in str(error.value)
  with pytest.raises(ValueError, match="'no_such' of 'gymnasium:no_such:A-v0'"):
    environments.make("gymnasium:no_such:A-v0", seed=0)
  with pytest.raises(ValueError, match="write gymnasium:<package>:<id>"):
    environments.make("gymnasium:Pong-v5", seed=0)


def test_a_missing_dependency_is_named_with_the_way_to_it(register):
  class Needs(Counting):
    def __init__(self):
      import no_such_package  # noqa: F401

  with pytest.raises(ValueError, match="'no_such_package'.*with pip"):
    environments.make(register(Needs), seed=0)


@pytest.mark.parametrize(
  "name", ["HalfCheetah-v5", "Ant-v5", "Hopper-v5", "LunarLander-v3"]
)
def test_tasks_that_need_further_packages(name):
  """MuJoCo's and Box2D's."""
  batch = environments.make_batched(f"gymnasium:{name}", 2, seed=0)
  environments.check(batch, max_steps=20)
  batch.close()
