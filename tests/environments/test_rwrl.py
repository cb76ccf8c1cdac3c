"""The Real-World RL suite against closed forms, statistics and golden traces.

rwrl_golden.npz was recorded from the published suite itself: see
tests/data/record_rwrl.py, which also says how.
"""

import dataclasses
import json
import pathlib

import dm_env
import numpy as np
import pytest
from dm_env import specs

from acme_stac import environments
from acme_stac.environments import control, rwrl
from acme_stac.environments.rwrl import (
  ChallengedEnvironment,
  Challenges,
  stages,
)
from acme_stac.environments.rwrl.challenges import suite_data
from acme_stac.environments.rwrl.faults import CORRECTED, PUBLISHED
from acme_stac.environments.rwrl.schedule import Schedule
from programs.run import validation
from tests.data import record_rwrl

# Imported by this name it has a renderer that works here.
suite = control.suite
TASKS = {
  "cartpole": ["balance", "swingup"],
  "walker": ["stand", "walk", "run"],
  "quadruped": ["walk", "run"],
  "humanoid": ["stand", "walk"],
}
BENCHMARK = [
  ("cartpole", "swingup"),
  ("walker", "walk"),
  ("quadruped", "walk"),
  ("humanoid", "walk"),
]


class Line(dm_env.Environment):
  """Observes and pays the number of the step; remembers what is applied."""

  def __init__(self, length=20, offset=0.0, as_dict=True):
    self._length, self._offset, self._as_dict = length, offset, as_dict
    self.applied = []
    self._t = 0
    self._episode = -1

  def _observation(self):
    vector = np.array([self._t, self._episode], np.float32) + self._offset
    if not self._as_dict:
      return vector
    return {"vector": vector, "scalar": np.float64(self._t + self._offset)}

  def reset(self):
    self._t, self._episode = 0, self._episode + 1
    return dm_env.restart(self._observation())

  def step(self, action):
    self.applied.append(np.array(action))
    self._t += 1
    make = dm_env.truncation if self._t == self._length else dm_env.transition
    return make(float(self._t), self._observation())

  def observation_spec(self):
    vector = specs.BoundedArray((2,), np.float32, 0, 100, name="vector")
    if not self._as_dict:
      return vector
    return {"vector": vector, "scalar": specs.Array((), np.float64)}

  def action_spec(self):
    return specs.BoundedArray((2,), np.float32, [-1, -1], [1, 2])


def rng(seed=0):
  return np.random.default_rng(seed)


def challenged(environment, exact=False, **challenges):
  return ChallengedEnvironment(
    environment, Challenges(**challenges), rng(),
    faults=PUBLISHED if exact else CORRECTED,
  )


def load(domain, task, level="none", seed=0, exact=False, **options):
  return rwrl.load(
    domain,
    task,
    challenges=Challenges.combined(domain, level, **options),
    seed=seed,
    exact=exact,
  )


def play(environment, steps, seed=0, resets=()):
  """Returns the time steps of random actions within the bounds."""
  actions = np.random.default_rng(seed)
  spec = environment.action_spec()
  trace = [environment.reset()]
  for t in range(1, steps + 1):
    if t in resets:
      trace.append(environment.reset())
    else:
      action = actions.uniform(spec.minimum, spec.maximum)
      trace.append(environment.step(action))
  return trace


def flat(step):
  return np.concatenate([np.ravel(x) for x in step.observation.values()])


def assert_same(trace, other):
  for step, expected in zip(trace, other, strict=True):
    assert step.step_type == expected.step_type
    assert step.reward == expected.reward
    assert step.discount == expected.discount
    np.testing.assert_array_equal(flat(step), flat(expected))


# Numbers.


def test_parameters_move_within_their_ranges():
  for domain, data in suite_data()["domains"].items():
    for name, numbers in data["parameters"].items():
      for scheduler, end in (("drift_neg", "min"), ("drift_pos", "max")):
        environment = load(
          domain,
          TASKS[domain][0],
          perturbation=name,
          perturbation_scheduler=scheduler,
          # A step that is sure to reach the end of the range.
          perturbation_std=1e6 * numbers["max"],
        )
        environment.reset()
        assert environment.perturbation == numbers[end]


@pytest.mark.parametrize("domain,task,seconds,substeps,observed,sizes", [
  (
    "cartpole", "swingup", 0.01, 1, {"position": (3,), "velocity": (2,)},
    (5, 15, 25, 55),
  ),
  (
    "walker", "walk", 0.025, 10,
    {"orientations": (14,), "height": (1,), "velocity": (9,)},
    (24, 34, 44, 74),
  ),
  (
    "quadruped", "walk", 0.02, 4,
    {
      "egocentric_state": (44,), "torso_velocity": (3,), "torso_upright": (1,),
      "imu": (6,), "force_torque": (24,),
    },
    (78, 88, 98, 128),
  ),
  (
    "humanoid", "walk", 0.025, 5,
    {
      "joint_angles": (21,), "head_height": (), "extremities": (12,),
      "torso_vertical": (3,), "com_velocity": (3,), "velocity": (27,),
    },
    (67, 77, 87, 117),
  ),
])
def test_sizes_and_times(domain, task, seconds, substeps, observed, sizes):
  """Scalars and vectors as in the published suite; the specs say the same."""
  environment = load(domain, task)
  np.testing.assert_allclose(environment.control_timestep(), seconds)
  np.testing.assert_allclose(
    environment.physics.timestep() * substeps, seconds
  )
  data = suite_data()["domains"][domain]
  np.testing.assert_allclose(data["time_limit"] / seconds, 1000)
  observation = environment.reset().observation
  assert [(k, np.shape(v)) for k, v in observation.items()] == [
    *observed.items()
  ]
  for level, size in zip(rwrl.LEVELS, sizes, strict=True):
    environment = load(domain, task, level)
    observation = environment.reset().observation
    spec = environment.observation_spec()
    assert list(spec) == list(observation)
    for name, part in spec.items():
      part.validate(np.asarray(observation[name]))
    name = f"rwrl:{domain}/{task}/{level}"
    batch = environments.make_batched(name, 2, seed=0)
    spec = batch.observation_spec()
    assert spec.shape == (size,) and spec.dtype == np.float32
    for step in (
      batch.reset(), batch.step(np.zeros((2, *batch.action_spec().shape)))
    ):
      assert step.observation.shape == (2, size)
      assert step.observation.dtype == np.float32


def test_quadruped_action_bounds():
  spec = load("quadruped", "walk").action_spec()
  np.testing.assert_array_equal(spec.minimum, 4 * [-1, -1, -0.8])
  np.testing.assert_array_equal(spec.maximum, 4 * [1, 1.1, 0.8])


# Stages and wrappers by themselves.


@pytest.mark.parametrize("delay", [1, 25])
@pytest.mark.parametrize("exact", [False, True])
def test_delayed_actions(delay, exact):
  """Step t applies a_max(1, t-d), counted from the start of the episode."""
  inside = Line(length=10)
  environment = ChallengedEnvironment(
    inside, Challenges(action_delay=delay), rng(),
    faults=PUBLISHED if exact else CORRECTED,
  )
  environment.reset()
  given = []
  for t in range(33):
    action = np.array([t, -t], np.float32) / 100
    step = environment.step(action)
    # The action of a step that starts an episode enters nothing.
    if not step.first():
      given.append(action.copy())
    # Its owner may use the array again.
    action[:] = 77.0
  assert len(inside.applied) == len(given) == 30
  for t, applied in enumerate(inside.applied):
    start = 0 if exact else t - t % 10
    np.testing.assert_array_equal(applied, given[max(start, t - delay)])


@pytest.mark.parametrize("delay", [1, 7])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("as_dict", [False, True])
def test_delayed_observations(delay, exact, as_dict):
  """Resets count as calls; what is delayed is whole observations."""
  environment = ChallengedEnvironment(
    Line(length=10, as_dict=as_dict),
    Challenges(observation_delay=delay),
    rng(),
    faults=PUBLISHED if exact else CORRECTED,
  )
  trace = play(environment, 32)
  for call, step in enumerate(trace):
    # Episodes have eleven calls.
    source = max(0 if exact else call - call % 11, call - delay)
    expected = [source % 11, source // 11]
    assert step.step_type == (
      dm_env.StepType.FIRST if call % 11 == 0
      else dm_env.StepType.LAST if call % 11 == 10 else dm_env.StepType.MID
    )
    if as_dict:
      np.testing.assert_array_equal(step.observation["vector"], expected)
      assert step.observation["scalar"] == expected[0]
    else:
      np.testing.assert_array_equal(step.observation, expected)
      assert step.observation.dtype == np.float32


def test_observations_belong_to_the_caller():
  """A late observation may be given several times; each is a copy."""
  environment = ChallengedEnvironment(
    Line(as_dict=False), Challenges(observation_delay=3), rng()
  )
  for t in range(8):
    step = environment.step(np.zeros(2))
    np.testing.assert_array_equal(step.observation, [max(0, t - 3), 0])
    step.observation[:] = 77.0


@pytest.mark.parametrize("delay", [0, 1, 20])
@pytest.mark.parametrize("exact", [False, True])
def test_returns_of_delayed_rewards(delay, exact):
  """The return is (d+1) r_1 + Σ_{t=2..T-d} r_t; exact goes on with the rest."""
  length = 30
  environment = ChallengedEnvironment(
    Line(length), Challenges(reward_delay=delay), rng(),
    faults=PUBLISHED if exact else CORRECTED,
  )
  r = np.arange(1.0, length + 1)
  first = (delay + 1) * r[0] + r[1 : length - delay].sum()
  later = r[length - delay :].sum() + r[: length - delay].sum()
  for episode in range(3):
    step, total = environment.reset(), 0.0
    assert step.reward is None and step.discount is None
    while not step.last():
      step = environment.step(np.zeros(2))
      assert step.discount == 1.0
      total += step.reward
    assert total == (later if exact and episode else first)


def test_reset_before_the_end_is_clean():
  c = Challenges(
    action_delay=2, observation_delay=2, reward_delay=2,
    repetition_probability=1.0, repetition_steps=3,
  )
  inside = Line(length=10)
  environment = ChallengedEnvironment(inside, c, rng())
  for _ in range(3):
    step = environment.reset()
    inside.applied.clear()
    assert step.observation["scalar"] == 0
    episode = step.observation["vector"][1]
    for t in range(5):
      step = environment.step(np.full(2, t / 10))
      assert step.observation["vector"][1] == episode
      assert step.reward == max(1, t - 1)
    # Delayed by two, then each third one is applied three times.
    np.testing.assert_allclose(
      np.stack(inside.applied)[:, 0], [0, 0, 0, 0.1, 0.1]
    )


@pytest.mark.parametrize("steps,expected", [
  (1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
  (2, [1, 1, 3, 3, 5, 5, 7, 7, 9]),
  (3, [1, 1, 1, 4, 4, 4, 7, 7, 7]),
])
def test_repetition(steps, expected):
  stage = stages.Repetition(1.0, steps, rng())
  assert [stage(t) for t in range(1, 10)] == expected


def test_share_of_repetition():
  """A cycle is one step with 1-p and k with p: 1 / (1 + p(k-1)) is fresh."""
  p, k, n = 0.3, 4, 40_000
  stage = stages.Repetition(p, k, rng())
  fresh = np.mean([stage(t) == t for t in range(n)])
  assert abs(fresh - 1 / (1 + p * (k - 1))) < 0.01


@pytest.mark.parametrize(
  "level,share", [("easy", 0.01), ("medium", 0.208), ("hard", 0.526)]
)
@pytest.mark.parametrize("kind", ["dropped", "stuck"])
def test_shares_of_dropped_and_stuck(level, share, kind):
  """In the long run pk / (pk + 1 - p)."""
  c = Challenges.combined("walker", level)
  p = getattr(c, f"{kind}_observations_probability")
  k = getattr(c, f"{kind}_observations_steps")
  assert abs(p * k / (p * k + 1 - p) - share) < 5e-4
  stage = (stages.Dropped if kind == "dropped" else stages.Stuck)(p, k, rng())
  size, calls = 4_000, 400
  hit = np.zeros((calls, size), bool)
  previous = None
  for call in range(calls):
    value = np.arange(1.0, size + 1) + size * call
    kept = value.copy()
    out = stage(value)
    np.testing.assert_array_equal(value, kept)
    hit[call] = out != value
    if kind == "dropped":
      np.testing.assert_array_equal(out[hit[call]], 0.0)
    elif call:
      np.testing.assert_array_equal(out[hit[call]], previous[hit[call]])
    previous = out
  # The first call of a spell that sticks cannot be told at call 0.
  assert abs(hit[100:].mean() - share) < 0.01
  # Components are independent: a step's mean varies as that of coin tosses.
  deviation = hit[100:].mean(1).std() / np.sqrt(share * (1 - share) / size)
  assert 0.5 < deviation < 2.0
  # Every spell lasts k calls, or a multiple where one follows another.
  for column in hit[:, :200].T:
    edges = np.flatnonzero(np.diff(column[1:].astype(int)))
    starts = edges[~column[1:][edges]]
    for start in starts:
      run = 0
      while start + 2 + run < calls and column[start + 2 + run]:
        run += 1
      assert run % k == 0 or start + 2 + run == calls


def test_stuck_keeps_what_was_dropped():
  stuck = stages.Stuck(1.0, 3, rng())
  # The first value is its own predecessor.
  assert [float(stuck(np.array(x))) for x in (0.0, 1.0, 2.0)] == [0.0] * 3


def test_gaussian_noise():
  noise = stages.GaussianNoise(0.3, rng())
  value = np.linspace(-5, 5, 20_000)
  error = noise(value) - value
  assert abs(error.mean()) < 0.01 and abs(error.std() - 0.3) < 0.01
  assert abs(np.corrcoef(error[1:], error[:-1])[0, 1]) < 0.03


def test_noisy_actions_are_clipped():
  """Noise first, then the bounds; the agent's own action is not clipped."""
  inside = Line(length=3000)
  environment = challenged(inside, action_noise=1.0)
  environment.reset()
  for _ in range(3000):
    environment.step(np.array([3.0, 0.0]))
  applied = np.stack(inside.applied)
  assert applied[:, 0].min() >= -1 and applied[:, 0].max() == 1
  assert applied[:, 1].min() == -1 and applied[:, 1].max() == 2
  # P(3 + N > 1) and P(N < -1).
  assert abs((applied[:, 0] == 1).mean() - 0.977) < 0.01
  assert abs((applied[:, 1] == -1).mean() - 0.159) < 0.02


def test_random_observations():
  environment = ChallengedEnvironment(
    Line(length=2000, as_dict=False), Challenges(random_observations=3), rng()
  )
  assert environment.observation_spec().shape == (5,)
  trace = play(environment, 1999)
  extra = np.stack([step.observation[2:] for step in trace])
  assert abs(extra.mean()) < 0.05 and abs(extra.std() - 1) < 0.05
  environment = challenged(Line(), random_observations=2)
  assert list(environment.reset().observation) == [
    "vector", "scalar", "dummy-0", "dummy-1",
  ]
  spec = environment.observation_spec()["dummy-1"]
  assert spec.shape == () and spec.dtype == np.float64


def test_order_of_observations():
  """Noise, drop, stuck, then the delay; random entries are left alone."""
  everything = Challenges(
    dropped_observations_probability=1.0,
    dropped_observations_steps=5,
    observation_noise=0.1,
    observation_delay=2,
    random_observations=2,
  )
  environment = ChallengedEnvironment(Line(offset=50.0), everything, rng())
  for step in play(environment, 15):
    assert not step.observation["vector"].any()
    assert step.observation["scalar"] == 0
    assert step.observation["dummy-0"] != 0
  # All stick from the first call on: noise of that moment, for ever.
  stuck = Challenges(
    observation_noise=0.1,
    stuck_observations_probability=1.0,
    stuck_observations_steps=3,
  )
  trace = play(ChallengedEnvironment(Line(offset=50.0), stuck, rng()), 15)
  assert len({float(step.observation["scalar"]) for step in trace}) == 1
  assert trace[0].observation["scalar"] != 50.0


def test_order_of_actions():
  """The last stage repeats, so that what is held is what was dropped."""
  inside = Line(length=400)
  environment = ChallengedEnvironment(
    inside,
    Challenges(
      action_noise=0.1,
      dropped_actions_probability=0.5,
      dropped_actions_steps=1,
      repetition_probability=1.0,
      repetition_steps=4,
    ),
    rng(),
  )
  environment.reset()
  for _ in range(400):
    environment.step(np.array([0.5, 0.5]))
  applied = np.stack(inside.applied).reshape(100, 4, 2)
  np.testing.assert_array_equal(applied, np.repeat(applied[:, :1], 4, axis=1))
  assert 0.35 < (applied[:, 0] == 0).mean() < 0.65
  assert np.unique(applied[:, 0][applied[:, 0] != 0]).size > 80


def test_challenges_of_any_environment():
  catch = environments.make("catch", seed=0)
  challenges = Challenges(
    dropped_observations_probability=0.5, dropped_observations_steps=2,
    action_delay=1, reward_delay=2,
  )
  environment = ChallengedEnvironment(catch, challenges, rng())
  trace = [environment.reset(), *(environment.step(0) for _ in range(20))]
  assert trace[0].observation.shape == (10, 5)
  assert trace[0].observation.dtype == np.float32
  assert min(step.observation.sum() for step in trace) < 2
  assert environment.action_spec().num_values == 3
  noisy = ChallengedEnvironment(catch, Challenges(observation_noise=0.1), rng())
  assert not isinstance(noisy.observation_spec(), specs.BoundedArray)
  assert noisy.reset().observation.min() < 0


def test_noise_needs_numbers_with_a_point():
  class Pixels(Line):
    def observation_spec(self):
      return specs.Array((2,), np.uint8, name="pixels")

  with pytest.raises(ValueError, match="'observation' is uint8"):
    challenged(Pixels(as_dict=False), observation_noise=0.1)
  challenged(Pixels(as_dict=False), observation_delay=3)
  with pytest.raises(ValueError, match="'action' is int32"):
    ChallengedEnvironment(
      environments.make("catch", seed=0), Challenges(action_noise=0.1), rng()
    )


# Schedules.


def values(scheduler, n=400, exact=False, seed=0, **numbers):
  numbers = {
    "start": 1.0, "min": 0.5, "max": 2.0, "std": 0.05, **numbers,
  }
  schedule = Schedule(
    scheduler, rng=rng(seed), saw_wave_forgets=exact, **numbers
  )
  return np.array([numbers["start"], *(schedule.next() for _ in range(n))])


@pytest.mark.parametrize("scheduler", rwrl.SCHEDULERS)
@pytest.mark.parametrize("exact", [False, True])
def test_schedules_keep_to_their_range(scheduler, exact):
  v = values(scheduler, exact=exact)
  assert v.min() >= 0.5 and v.max() <= 2.0
  np.testing.assert_array_equal(v, values(scheduler, exact=exact))
  if scheduler != "constant":
    assert np.any(v != values(scheduler, exact=exact, seed=1)) or exact


def test_schedules():
  assert (values("constant") == 1.0).all()
  up, down = np.diff(values("drift_pos")), np.diff(values("drift_neg"))
  assert (up >= 0).all() and values("drift_pos")[-1] == 2.0
  assert (down <= 0).all() and values("drift_neg")[-1] == 0.5
  # Half-normal steps: mean σ √(2/π).
  free = np.diff(values("drift_pos", 4000, max=1e6))
  assert abs(free.mean() - 0.05 * np.sqrt(2 / np.pi)) < 0.001
  walk = np.diff(values("random_walk", 4000, min=-1e6, max=1e6))
  assert abs(walk.mean()) < 0.003 and abs(walk.std() - 0.05) < 0.002
  uniform = values("uniform", 4000)[1:]
  assert abs(uniform.mean() - 1.25) < 0.03
  assert abs(uniform.std() - 1.5 / np.sqrt(12)) < 0.02
  for scheduler, sign in (("cyclic_pos", 1), ("cyclic_neg", -1)):
    v = values(scheduler)
    back = sign * np.diff(v) < 0
    assert back.sum() > 5
    np.testing.assert_array_equal(v[1:][back], 1.0)


def test_saw_wave():
  """Up to the maximum, down to the minimum, and so on."""
  v = values("saw_wave", 1000)
  assert v.max() == 2.0 and v.min() == 0.5
  direction = np.sign(np.diff(v))
  turns = np.flatnonzero(np.diff(direction) != 0) + 1
  assert turns.size > 10
  # Turns happen at the ends only, alternating.
  assert set(v[turns]) == {0.5, 2.0}
  assert (np.diff(v[turns]) != 0).all()
  # About range / mean step a ride.
  assert abs(np.diff(turns).mean() - 1.5 / (0.05 * np.sqrt(2 / np.pi))) < 6


def test_published_saw_wave_forgets_its_value():
  # Steps of 0.05 are never within [0.5, 2]: it sticks at the minimum.
  assert (values("saw_wave", exact=True)[1:] == 0.5).all()
  # With room for the step itself it is ±|δ|.
  steps = np.abs(np.random.default_rng(0).normal(scale=0.05, size=400))
  v = values("saw_wave", exact=True, min=-10.0, max=10.0)[1:]
  np.testing.assert_array_equal(v, steps)
  flips = values("saw_wave", exact=True, min=-0.04, max=0.04)[1:]
  assert (np.sign(flips[1:]) != np.sign(flips[:-1])).any()


# The models.


# Named fields of a model live as long as their physics.
_KEPT = []


def perturbed(domain, parameter, value, exact=False):
  environment = load(
    domain, TASKS[domain][1 if domain != "quadruped" else 0],
    perturbation=parameter, perturbation_start=value, exact=exact,
  )
  environment.reset()
  assert environment.perturbation == value
  _KEPT.append(environment)
  return environment.physics.named.model


def test_models():
  pole = perturbed("cartpole", "pole_length", 1.7)
  np.testing.assert_allclose(pole.body_mass["pole_1"], 0.17)
  np.testing.assert_allclose(pole.geom_pos["pole_1"], [0, 0, 0.85])
  np.testing.assert_allclose(pole.geom_size["pole_1"][:2], [0.045, 0.85])
  pole = perturbed("cartpole", "pole_mass", 2.5)
  np.testing.assert_allclose(pole.body_mass["pole_1"], 2.5)
  np.testing.assert_allclose(pole.geom_size["pole_1"][1], 0.5)
  pole = perturbed("cartpole", "joint_damping", 0.15)
  np.testing.assert_allclose(pole.dof_damping["hinge_1"], 0.15)
  np.testing.assert_allclose(pole.dof_damping["slider"], 5e-4)
  pole = perturbed("cartpole", "slider_damping", 1.5)
  np.testing.assert_allclose(pole.dof_damping["hinge_1"], 2e-6)
  np.testing.assert_allclose(pole.dof_damping["slider"], 1.5)

  legs = perturbed("walker", "thigh_length", 0.4)
  for side in ("left", "right"):
    np.testing.assert_allclose(legs.geom_pos[f"{side}_thigh"], [0, 0, -0.4])
    np.testing.assert_allclose(
      legs.geom_size[f"{side}_thigh"][:2], [0.05, 0.4]
    )
    np.testing.assert_allclose(legs.body_pos[f"{side}_leg"], [0, 0, -1.05])
  for exact, left in ((False, 0.05), (True, -0.05)):
    torso = perturbed("walker", "torso_length", 0.5, exact)
    np.testing.assert_allclose(torso.geom_size["torso"][:2], [0.07, 0.5])
    np.testing.assert_allclose(torso.body_pos["left_thigh"], [0, left, -0.5])
    np.testing.assert_allclose(
      torso.body_pos["right_thigh"], [0, -0.05, -0.5]
    )
  damping = perturbed("walker", "joint_damping", 5.0).dof_damping
  assert np.sort(np.asarray(damping)).tolist() == [0] * 3 + [5.0] * 6
  friction = perturbed("walker", "contact_friction", 1.3).geom_friction
  np.testing.assert_allclose(friction, np.tile([1.3, 0.1, 0.1], (8, 1)))

  shin = perturbed("quadruped", "shin_length", 0.8)
  np.testing.assert_allclose(shin.geom_size["shin_front_left"][1] * 2,
                             0.8 * np.sqrt(2))
  for end in ("front", "back"):
    for side in ("left", "right"):
      np.testing.assert_allclose(
        shin.body_pos[f"ankle_{end}_{side}"], [0.8, 0, -0.8]
      )
  _KEPT.append(suite.load("quadruped", "walk"))
  stock = _KEPT[-1].physics.named.model
  np.testing.assert_array_equal(
    shin.geom_size["floor"], stock.geom_size["floor"]
  )
  heavy = perturbed("quadruped", "torso_density", 4000.0)
  ratio = heavy.body_mass["torso"] - stock.body_mass["torso"]
  # Mass is density times volume: three more times 1000 kg per m³.
  light = perturbed("quadruped", "torso_density", 2000.0)
  np.testing.assert_allclose(
    ratio, 3 * (light.body_mass["torso"] - stock.body_mass["torso"])
  )
  damping = perturbed("quadruped", "joint_damping", 100.0).dof_damping
  assert (np.asarray(damping) == 100.0).sum() == 16
  friction = perturbed("quadruped", "contact_friction", 3.0).geom_friction
  np.testing.assert_allclose(friction["floor"], [3.0, 0.1, 0.1])
  np.testing.assert_allclose(
    friction["toe_back_left"], [3.0, *stock.geom_friction["toe_back_left"][1:]]
  )

  friction = perturbed("humanoid", "contact_friction", 0.4).geom_friction
  np.testing.assert_allclose(
    friction, np.tile([0.4, 0.1, 0.1], (friction.shape[0], 1))
  )
  damping = perturbed("humanoid", "joint_damping", 1.5).dof_damping
  assert (np.asarray(damping) == 1.5).sum() == 12
  assert (np.asarray(damping) == 5.0).sum() == 9
  head = perturbed("humanoid", "head_size", 0.15)
  np.testing.assert_allclose(head.geom_size["head"][0], 0.15)


def test_perturbation_changes_physics_when_its_value_does():
  def physics(**options):
    environment = load("walker", "walk", **options)
    seen = []
    for _ in range(7):
      environment.reset()
      seen.append((environment.physics, environment.perturbation))
    return seen

  for period in (1, 3):
    seen = physics(
      perturbation="thigh_length", perturbation_scheduler="uniform",
      perturbation_period=period,
    )
    for k in range(1, 7):
      assert (seen[k][1] != seen[k - 1][1]) == (k % period == 0)
      assert (seen[k][0] is seen[k - 1][0]) == (k % period != 0)
  # Compiling takes time: not for the same value.
  assert len({id(p) for p, _ in physics(perturbation="thigh_length")}) == 1
  assert all(value is None for _, value in physics())


@pytest.mark.parametrize("domain,task", BENCHMARK)
def test_perturbed_values_of_levels(domain, task):
  environment = load(domain, task, "hard")
  numbers = suite_data()["domains"][domain]["levels"]["hard"]
  seen = []
  for _ in range(4):
    environment.reset()
    seen.append(environment.perturbation)
  assert len(set(seen)) == 4
  assert min(seen) >= numbers["min"] and max(seen) <= numbers["max"]


# The suite.


def test_golden():
  """Exact mode is the published suite, number for number."""
  path = pathlib.Path(record_rwrl.__file__).parent / "rwrl_golden.npz"
  with np.load(path) as golden:
    cases = json.loads(str(golden["cases"]))
    assert len(cases) == 78
    for index, case in enumerate(cases):
      environment = load(
        case["domain"], case["task"], case["level"], seed=index, exact=True,
        **case["options"],
      )
      trace = record_rwrl.play(
        environment, case["steps"], case["resets"], seed=100 + index
      )
      # Bit for bit on the machine of the recording; others may round the last
      # digits of the simulation differently.
      np.testing.assert_allclose(
        trace, golden[f"trace_{index}"], rtol=1e-9, atol=1e-9,
        err_msg=case["name"],
      )


@pytest.mark.parametrize("domain,task", BENCHMARK)
def test_without_challenges_it_is_the_control_suite(domain, task):
  mine = load(domain, task, seed=7, exact=True)
  stock = suite.load(domain, task, task_kwargs={"random": 7})
  if domain == "quadruped":
    # Starts differently; its dynamics and rewards are the same from there.
    mine.reset()
    stock.reset()
    with stock.physics.reset_context():
      stock.physics.data.qpos[:] = mine.physics.data.qpos
    trace, other = play_on(mine, 30), play_on(stock, 30)
  else:
    trace, other = play(mine, 30, resets=[15]), play(stock, 30, resets=[15])
  for step, expected in zip(trace, other, strict=True):
    assert step.reward == expected.reward
    np.testing.assert_array_equal(flat(step), flat(expected))


def play_on(environment, steps):
  actions = np.random.default_rng(0)
  spec = environment.action_spec()
  return [
    environment.step(actions.uniform(spec.minimum, spec.maximum))
    for _ in range(steps)
  ]


def test_quadruped_starts_upright():
  environment = load("quadruped", "walk")
  azimuths = []
  for _ in range(25):
    environment.reset()
    physics = environment.physics
    root = physics.named.data.qpos["root"].copy()
    np.testing.assert_array_equal(root[[0, 1, 4, 5]], 0.0)
    np.testing.assert_allclose(np.hypot(root[3], root[6]), 1.0)
    azimuths.append(2 * np.arctan2(root[6], root[3]) % (2 * np.pi))
    np.testing.assert_allclose(physics.torso_upright(), 1.0)
    # It does not touch the floor, but would one centimetre further down.
    assert physics.data.ncon == 0
    np.testing.assert_allclose(root[2] * 100, round(root[2] * 100))
    with physics.reset_context():
      physics.named.data.qpos["root"][:] = root
      physics.named.data.qpos["root"][2] -= 0.01
    assert physics.data.ncon > 0
  assert min(azimuths) < 1.5 and max(azimuths) > 2 * np.pi - 1.5


@pytest.mark.parametrize("domain,task,level", [
  ("cartpole", "swingup", "none"), ("walker", "walk", "hard")
])
def test_episodes_are_1000_steps_and_bootstrap(domain, task, level):
  """The step after LAST starts the next episode as a reset does."""
  environment, twin = (load(domain, task, level) for _ in range(2))
  environment.reset(), twin.reset()
  action = np.zeros(environment.action_spec().shape)
  for t in range(1, 1001):
    step = environment.step(action)
    twin.step(action)
    assert step.discount == 1.0
    assert step.last() == (t == 1000)
    assert 0.0 <= step.reward <= 1.0
  step, expected = environment.step(action + 1.0), twin.reset()
  assert step.first() and step.reward is None and step.discount is None
  np.testing.assert_array_equal(flat(step), flat(expected))


@pytest.mark.parametrize("name", ["cartpole/swingup/hard", "walker/walk/easy"])
def test_seeds(name):
  def observations(seed):
    batch = environments.make_batched(f"rwrl:{name}", 3, seed=seed)
    size = batch.action_spec().shape
    steps = [batch.reset()]
    for _ in range(12):
      steps.append(batch.step(np.zeros((3, *size))))
    return np.stack([s.observation for s in [*steps, batch.reset()]])

  state = np.random.get_state()[1].copy()
  first = observations(1)
  # The global generator is neither used nor needed.
  np.testing.assert_array_equal(np.random.get_state()[1], state)
  np.random.seed(5)
  np.testing.assert_array_equal(first, observations(1))
  assert np.any(first != observations(2))
  for a in range(3):
    for b in range(a):
      # Initial states, noise and perturbation all differ.
      assert np.all(np.any(first[:, a] != first[:, b], axis=-1))


def test_members_of_neighbouring_seeds_differ():
  """Seeds 0 and 1 share no member, unlike with seed, seed + 1, ..."""
  name = "rwrl:cartpole/swingup/none"
  starts = [
    tuple(row)
    for seed in range(3)
    for row in environments.make_batched(name, 3, seed).reset().observation
  ]
  assert len(set(starts)) == 9


def test_exact_draws_from_the_global_generator():
  def trace(global_seed, seed):
    environment = load("cartpole", "swingup", "easy", seed=seed, exact=True)
    np.random.seed(global_seed)
    return np.stack([flat(step) for step in play(environment, 5)])

  np.testing.assert_array_equal(trace(0, 3), trace(0, 3))
  dummies = slice(5, None)
  np.testing.assert_array_equal(
    trace(0, 3)[:, dummies], trace(0, 4)[:, dummies]
  )
  assert np.all(trace(0, 3)[:, dummies] != trace(1, 3)[:, dummies])
  assert np.any(trace(0, 3)[:, :5] != trace(0, 4)[:, :5])


def test_exact_batch_is_the_exact_environment():
  batch = environments.make_batched(
    "rwrl:walker/walk/medium", 1, seed=4, exact=True
  )
  np.random.seed(0)
  step = batch.reset()
  single = load("walker", "walk", "medium", seed=4, exact=True)
  np.random.seed(0)
  np.testing.assert_array_equal(
    step.observation[0], flat(single.reset()).astype(np.float32)
  )


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("level", ["none", "hard"])
def test_specs_have_no_effect(exact, level):
  options = {
    "safety": True, "multi_objective_observed": True, "exact": exact,
  }

  def trace(read):
    np.random.seed(0)
    environment = load("walker", "walk", level, **options)
    read(environment)
    steps = [environment.reset()]
    read(environment)
    for _ in range(12):
      steps.append(environment.step(np.full(6, 0.3)))
      read(environment)
    return steps

  assert_same(
    trace(lambda environment: environments.environment_spec(environment)),
    trace(lambda environment: None),
  )


def test_single_challenges_are_options():
  c = Challenges.combined("walker", "easy", action_delay=5, reward_delay=0)
  assert c == dataclasses.replace(
    Challenges.combined("walker", "easy"), action_delay=5, reward_delay=0
  )
  batch = environments.make_batched(
    "rwrl:walker/walk/easy", 1, 0, random_observations=1, safety=True,
    safety_constraints=["torso_upright"], action_delay=None,
  )
  assert batch.observation_spec().shape == (24 + 1 + 1,)
  # Another parameter than the level's: the domain's range, not the level's.
  c = Challenges.combined(
    "walker", "easy", perturbation="torso_length", perturbation_max=0.4
  )
  assert (c.perturbation_min, c.perturbation_max) == (None, 0.4)
  environment = rwrl.load("walker", "walk", challenges=c)
  for _ in range(5):
    environment.reset()
    assert 0.1 <= environment.perturbation <= 0.4
  assert Challenges.combined("walker", "hard", perturbation="none") == (
    dataclasses.replace(
      Challenges.combined("walker", "hard"),
      perturbation="none", perturbation_start=None, perturbation_min=None,
      perturbation_max=None, perturbation_std=None,
      perturbation_scheduler="constant", perturbation_period=1,
    )
  )


def test_run_configuration():
  from configs import rwrl as rwrl_config

  config = rwrl_config.get_config("quadruped/walk/medium")
  config.environment_options.action_delay = 2
  config.environment_options.safety_constraints = ("upright",)
  config.environment_options.safety = True
  made = validation.make_experiment(config, 1, "unused")
  assert made.config.num_environment_steps == 30_000_000
  assert made.config.lstm_size == 256 and made.config.batch_size == 24
  assert made.environment_spec.observations.shape == (98 + 1,)


# Safety and the second objective.


def test_constraints_of_tasks():
  expected = {
    "cartpole": ["slider_pos", "slider_accel", "balance_velocity"],
    "walker": [
      "joint_angle", "joint_velocity", "dangerous_fall", "torso_upright"
    ],
    "quadruped": ["joint_angle", "joint_velocity", "upright", "foot_force"],
    "humanoid": [
      "joint_angle", "joint_velocity", "upright", "dangerous_fall",
      "foot_force",
    ],
  }
  for domain, names in expected.items():
    for task in TASKS[domain]:
      environment = load(domain, task, safety=True)
      spec = environment.observation_spec()["constraints"]
      assert spec.shape == (len(names),) and spec.dtype == bool
  one = load(domain, task, safety=True, safety_constraints=names[::-1])
  assert_same(
    [s._replace(observation={**s.observation, "constraints": s.observation[
      "constraints"][::-1]}) for s in play(one, 10)],
    play(environment, 10),
  )
  hidden = load(domain, task, safety=True, safety_observed=False)
  assert "constraints" not in hidden.reset().observation


def satisfied(environment, action=0.0):
  """Steps with an action and returns the constraints there."""
  size = environment.action_spec().shape
  return environment.step(np.full(size, action)).observation["constraints"]


@pytest.mark.parametrize(
  "task,position,acceleration", [("swingup", 2.0, 130), ("balance", 1.5, 10)]
)
@pytest.mark.parametrize("coefficient", [1.0, 0.6])
def test_cartpole_constraints(task, position, acceleration, coefficient):
  environment = load(
    "cartpole", task, safety=True, safety_coefficient=coefficient
  )
  environment.reset()
  data = environment.physics.data
  states = np.random.default_rng(3)
  seen = []
  for _ in range(600):
    # States all over the place; the step goes on from there.
    data.qpos[:] = states.uniform([-2.5, -0.8], [2.5, 0.8])
    data.qvel[:] = states.uniform(-1, 1, 2)
    got = satisfied(environment, states.uniform(-1, 1))
    angle, rate = data.qpos[1], data.qvel[1]
    near = np.cos(angle) > np.cos((1 - coefficient) / 0.5 + 0.15)
    expected = [
      -position * coefficient < data.qpos[0] < position * coefficient,
      abs(data.qacc[0]) < acceleration * coefficient,
      not (near and abs(rate) > 0.5 * coefficient),
    ]
    np.testing.assert_array_equal(got, expected)
    seen.append(got)
  # Both states of each, but for accelerations that no action brings about.
  assert np.all(np.max(seen, axis=0))
  assert not np.any(np.min(seen, axis=0)[[0, 2]])
  assert np.min(seen, axis=0)[1] == (acceleration * coefficient > 100)


def test_walker_joint_angles():
  """All joints within their limits; published: some above, some below."""
  for exact in (False, True):
    environment = load("walker", "stand", safety=True, exact=exact)
    environment.reset()
    # The model's own pose.
    environment.physics.reset()
    assert satisfied(environment)[0]
    environment.physics.named.data.qpos["left_knee"] = np.deg2rad(40)
    assert satisfied(environment)[0] == exact
    environment.physics.named.data.qpos["left_knee"] = 0.0
    environment.physics.named.data.qpos["right_hip"] = np.deg2rad(-45)
    assert satisfied(environment)[0] == exact


def test_humanoid_joint_velocities():
  """All joints; published: all but the first."""
  for exact in (False, True):
    environment = load("humanoid", "stand", safety=True, exact=exact)
    environment.reset()
    environment.physics.named.data.qvel["abdomen_z"] = 4000.0
    environment.physics.forward()
    environment.task.after_step(environment.physics)
    assert environment.constraints()[1] == exact
    environment.physics.named.data.qvel["right_knee"] = 4000.0
    environment.task.after_step(environment.physics)
    assert not environment.constraints()[1]


def _write(array, key):
  def write(named, value):
    getattr(named, array)[key] = value

  return write


@pytest.mark.parametrize(
  "domain,task,name,write,limit,above",
  [
    ("walker", "walk", "joint_velocity", _write("qvel", "left_knee"),
     lambda c: 65 * c, False),
    ("walker", "walk", "dangerous_fall", _write("xmat", ("torso", "zx")),
     lambda c: 0.5 * c, False),
    ("walker", "walk", "torso_upright", _write("xmat", ("torso", "zz")),
     lambda c: 1 - c, True),
    ("quadruped", "run", "joint_angle", _write("qpos", "knee_back_left"),
     lambda c: np.deg2rad(60) * c, False),
    ("quadruped", "walk", "joint_velocity", _write("qvel", "yaw_front_left"),
     lambda c: 20 * c, False),
    ("quadruped", "run", "joint_velocity", _write("qvel", "ankle_back_right"),
     lambda c: 0.4 * c, False),
    ("quadruped", "walk", "upright", _write("xmat", ("torso", "zz")),
     lambda c: 1 - 0.7 * c, True),
    ("quadruped", "walk", "foot_force",
     _write("sensordata", "force_toe_back_left"),
     lambda c: 20_000 * c / np.sqrt(3), False),
    ("quadruped", "run", "foot_force",
     _write("sensordata", "force_toe_front_right"),
     lambda c: 300_000 * c / np.sqrt(3), False),
    ("humanoid", "walk", "joint_angle", _write("qpos", "left_knee"),
     lambda c: np.pi * c, False),
    ("humanoid", "walk", "joint_velocity", _write("qvel", "right_elbow"),
     lambda c: 90 * c, False),
    ("humanoid", "stand", "upright", _write("xmat", ("torso", "zz")),
     lambda c: 1 - c, True),
    ("humanoid", "walk", "dangerous_fall", _write("sensordata", "head_touch"),
     lambda c: 100 * c, False),
    ("humanoid", "walk", "dangerous_fall", _write("sensordata", "torso_touch"),
     lambda c: 100 * c, False),
    ("humanoid", "walk", "foot_force",
     _write("sensordata", "left_right_foot_touch"), lambda c: 8000 * c, False),
  ],
)
def test_limits_of_constraints(domain, task, name, write, limit, above):
  """Just inside and just outside, by writing what is measured."""
  coefficient = 0.35
  environment = load(
    domain, task, safety=True, safety_constraints=[name],
    safety_coefficient=coefficient,
  )
  environment.reset()
  physics = environment.physics
  for array in (physics.data.sensordata, physics.data.qvel):
    array[:] = 0.0
  # Nothing but the root's height and direction.
  physics.data.qpos[7 if domain != "walker" else 0:] = 0.0
  named = physics.named.data
  for factor in (0.999, 1.001):
    write(named, limit(coefficient) * factor + (factor - 1) * 1e-3)
    environment.task.after_step(physics)
    assert environment.constraints()[0] == ((factor > 1) == above)


@pytest.mark.parametrize(
  "domain,limit",
  [("cartpole", 1.5), ("walker", 1.55), ("quadruped", 1.4),
   ("humanoid", 1.85)],
)
def test_action_rate(domain, limit):
  """The change of what is really applied, from one step to the next."""
  environment = load(
    domain, TASKS[domain][0], safety=True, safety_constraints=["action_rate"],
    safety_coefficient=0.5,
  )
  environment.reset()
  # Half of it, so that both sides are within every actuator's bounds.
  edge = 0.5 * limit
  for sign in (1, -1):
    environment.reset()
    assert satisfied(environment, sign * (edge - 0.01) / 2)
    assert satisfied(environment, -sign * (edge - 0.01) / 2)
    assert not satisfied(environment, sign * 0.02 + sign * edge / 2)
  # Nothing was applied before a reset.
  assert environment.reset().observation["constraints"].all()


@pytest.mark.parametrize("exact", [False, True])
def test_constraints_and_delay(exact):
  """As late as the rest; published: at once."""
  options = {"safety": True, "safety_coefficient": 0.3, "exact": exact}
  prompt = play(load("cartpole", "balance", **options), 60)
  late = play(load("cartpole", "balance", observation_delay=4, **options), 60)
  entries = np.stack([s.observation["constraints"] for s in prompt])
  got = np.stack([s.observation["constraints"] for s in late])
  sources = np.arange(61) if exact else np.maximum(np.arange(61) - 4, 0)
  assert (entries[:-4] != entries[4:]).any()
  np.testing.assert_array_equal(got, entries[sources])


def test_constraints_at_a_reset_are_those_of_its_state():
  """Published: those of the model's own pose, whose torso is upright."""
  for exact in (False, True):
    environment = load("walker", "walk", safety=True, exact=exact)
    upright, entries = [], []
    for _ in range(12):
      entries.append(environment.reset().observation["constraints"][3])
      upright.append(environment.physics.torso_upright() > 0.0)
    assert set(upright) == {True, False}
    assert entries == (12 * [True] if exact else upright)


@pytest.mark.parametrize("domain,task", BENCHMARK[:2])
def test_multi_objective_reward(domain, task):
  coefficient = 0.05 if domain == "cartpole" else 0.3
  options = {"safety": True, "safety_coefficient": coefficient}
  plain = play(load(domain, task, **options), 25)
  mixed = play(
    load(
      domain, task, multi_objective_alpha=0.3, multi_objective_observed=True,
      **options,
    ),
    25,
  )
  observed = play(
    load(domain, task, multi_objective_observed=True, **options), 25
  )
  shares = set()
  for before, step, other in zip(plain, mixed, observed, strict=True):
    reward, share = step.observation["multiobj"]
    assert list(step.observation)[-1] == "multiobj"
    assert share == step.observation["constraints"].mean()
    np.testing.assert_array_equal(other.observation["multiobj"],
                                  [reward, share])
    shares.add(share)
    if step.first():
      assert step.reward is None
      continue
    assert reward == before.reward == other.reward
    np.testing.assert_allclose(
      step.reward, 0.7 * reward + 0.3 * share, rtol=1e-12
    )
  assert len(shares) > 1


def test_objectives_are_not_delayed():
  late = load(
    "walker", "walk", safety=True, observation_delay=5, reward_delay=5,
    multi_objective_alpha=0.5, multi_objective_observed=True,
  )
  prompt = load(
    "walker", "walk", safety=True, multi_objective_alpha=0.5,
    multi_objective_observed=True,
  )
  now, then = play(prompt, 20), play(late, 20)
  for t, (step, expected) in enumerate(zip(then, now, strict=True)):
    np.testing.assert_array_equal(
      step.observation["multiobj"], expected.observation["multiobj"]
    )
    if t:
      # The mixture is made first, then it is late.
      assert step.reward == now[max(1, t - 5)].reward


# Errors.


@pytest.mark.parametrize(
  "name,message",
  [
    ("walker/walk/eazy", "Did you mean 'walker/walk/easy'"),
    ("walker/walk", "Did you mean 'walker/walk/"),
    ("wolker/walk/easy", "Did you mean 'walker/walk/easy'"),
    ("", "Unknown Real-World RL task"),
  ],
)
def test_unknown_names(name, message):
  with pytest.raises(ValueError, match=message):
    environments.make(f"rwrl:{name}", seed=0)


@pytest.mark.parametrize(
  "options,message",
  [
    ({"action_delya": 3}, "Did you mean 'action_delay'"),
    ({"action_delay": -1}, "action_delay must be a whole number of at least 0"),
    ({"action_delay": 10**9}, "at least 0 and at most 1000"),
    ({"reward_delay": 1.5}, "reward_delay .* must be of type int"),
    ({"stuck_actions_steps": 0}, "at least 1"),
    ({"observation_noise": -0.1}, "observation_noise must be a finite number"),
    ({"repetition_probability": 1.1}, r"in \[0.0, 1.0\]"),
    ({"dropped_actions_probability": float("nan")}, "finite number"),
    ({"safety": 1}, "must be of type bool"),
    ({"safety": True, "safety_coefficient": 2}, "safety_coefficient"),
    (
      {"safety": True, "safety_constraints": ["upright"]},
      "Unknown constraint: 'upright'. Did you mean 'torso_upright'",
    ),
    ({"safety_constraints": "joint_angle"}, "must be of type tuple"),
    ({"safety_coefficient": 0.5}, "has no effect. Set safety=True too"),
    ({"safety_constraints": ("joint_angle",)}, "has no effect"),
    ({"multi_objective_alpha": 0.5}, "Set safety=True too"),
    ({"multi_objective_observed": True}, "Set safety=True too"),
    ({"perturbation": "tigh_length"}, "Did you mean 'thigh_length'"),
    ({"perturbation": "shin_length"}, "Unknown walker perturbation"),
    ({"perturbation_scheduler": "sawwave"}, "Did you mean 'saw_wave'"),
    ({"perturbation_period": 0}, "at least 1"),
    ({"perturbation_min": 0.3}, "has no effect. Set perturbation too"),
    ({"perturbation_scheduler": "uniform"}, "has no effect"),
    ({"perturbation_period": 3}, "has no effect"),
    (
      {"perturbation": "thigh_length", "perturbation_start": 5.0},
      r"must lie in the range from perturbation_min \(0.1\)",
    ),
    (
      {
        "perturbation": "thigh_length",
        "perturbation_min": 0.3,
        "perturbation_max": 0.2,
      },
      r"must lie in the range from perturbation_min \(0.3\) to",
    ),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    environments.make_batched("rwrl:walker/walk/none", 1, 0, **options)


def test_bad_arguments():
  with pytest.raises(ValueError, match="Did you mean 'walker/walk'"):
    rwrl.load("walkr", "walk")
  with pytest.raises(ValueError, match="Real-World RL task: 'walker/jump'"):
    rwrl.load("walker", "jump")
  with pytest.raises(ValueError, match="Unknown level: 'extreme'"):
    Challenges.combined("walker", "extreme")
  with pytest.raises(ValueError, match="Unknown domain"):
    Challenges.combined("fish", "easy")
