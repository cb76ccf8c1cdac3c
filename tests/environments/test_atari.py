import ale_py
import cv2
import dm_env
import numpy as np
import pytest
from ale_py import roms

from acme_stac import environments
from acme_stac.environments import atari
from acme_stac.evaluation import scores
from tests.support import playing

FIRST, MID, LAST = (
  dm_env.StepType.FIRST,
  dm_env.StepType.MID,
  dm_env.StepType.LAST,
)


class Emulator:
  """A second, plain coding of the preprocessing, on the bare emulator."""

  def __init__(self, game):
    self.ale = ale_py.ALEInterface()
    self.ale.setInt("random_seed", 0)
    self.ale.setFloat("repeat_action_probability", 0.0)
    self.ale.loadROM(roms.get_rom_path(game))
    self.actions = self.ale.getMinimalActionSet()
    self.reset()

  def reset(self):
    self.ale.reset_game()
    first = self.frame(self.ale.getScreenGrayscale())
    self.stack = [np.zeros_like(first)] * 3 + [first]

  @staticmethod
  def frame(screen):
    return cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)

  def step(self, action):
    """Returns the stack, the reward, whether a life was lost and the end."""
    screens, reward, lives = [], 0.0, self.ale.lives()
    for _ in range(4):
      reward += self.ale.act(self.actions[action])
      screens.append(self.ale.getScreenGrayscale())
      if self.ale.game_over():
        break
    self.stack = self.stack[1:] + [self.frame(np.max(screens[-2:], axis=0))]
    lost = self.ale.lives() < lives
    return np.stack(self.stack), reward, lost, self.ale.game_over()


@pytest.mark.parametrize(
  "game",
  [
    "breakout", "pong", "space_invaders", "qbert", "asterix", "ms_pacman",
    "bank_heist",
  ],
)
def test_preprocessing_against_a_plain_emulator(game):
  """Frame by frame: skip, maximum, grey, 84 × 84, stack, lives, new games."""
  environment = environments.make_batched(
    f"atari:{game}", 1, seed=0, max_noops=0
  )
  emulator = Emulator(game)
  step = environment.reset()
  rng = np.random.default_rng(0)
  lost_lives = lost_last_lives = rewards = games = 0
  over = True
  for _ in range(1000):
    if games == 2:
      # How many frames follow an end is the library's affair, and some games
      # remember it.
      break
    if over:
      emulator.reset()
      assert step.step_type[0] == FIRST
      np.testing.assert_allclose(
        step.observation[0].astype(int), np.stack(emulator.stack), 0, 1
      )
    action = rng.integers(len(emulator.actions))
    step = environment.step(np.array([action]))
    stack, reward, lost, over = emulator.step(action)
    assert step.reward[0] == reward
    assert step.discount[0] == (0.0 if lost or over else 1.0)
    assert step.step_type[0] == (LAST if over else MID)
    if over:
      # Its frame has no value, and may be one that was skipped.
      step = environment.step(np.array([action]))
    else:
      # The library's own resizing may round the other way.
      np.testing.assert_allclose(step.observation[0].astype(int), stack, 0, 1)
    lost_lives += lost
    lost_last_lives += lost and not over and emulator.ale.lives() == 0
    rewards += reward != 0
    games += over
  assert rewards > 0
  assert game == "pong" or lost_lives > games > 0
  # This one goes on with no life left.
  assert (lost_last_lives > 0) == (game == "bank_heist")


def test_atari_rewards_are_raw():
  environment = environments.make_batched("atari:space_invaders", 4, seed=0)
  rewards = np.stack([step.reward for step in playing.play(environment, 400)])
  assert rewards.max() > 1.0


@pytest.mark.parametrize("terminal", [True, False])
def test_atari_life_loss(terminal):
  """A lost life may end the return that is learned, never the game."""
  environment = environments.make_batched(
    "atari:breakout", 2, seed=0, life_loss_is_terminal=terminal
  )
  trace = playing.play(environment, 400)
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
  trace = playing.play(environment, 60)
  last = [t for t, step in enumerate(trace) if step.step_type[0] == LAST]
  assert last[:2] == [25, 51]
  assert all(trace[t].discount[0] == 1.0 for t in last)


def test_atari_options():
  environment = environments.make_batched(
    "atari:pong", 1, seed=0, full_action_set=True
  )
  assert environment.action_spec().num_values == atari.NUM_ACTIONS == 18
  assert environment.action_repeat == 4
  actions = [np.array([t % 6]) for t in range(100)]

  def frames(probability):
    sticky = environments.make_batched(
      "atari:pong", 1, seed=3, sticky_action_probability=probability
    )
    trace = playing.play(sticky, 100, actions=actions)
    return np.stack([step.observation for step in trace])

  assert np.any(frames(0.25) != frames(0.0))


def test_no_ops():
  """Games start after 0 to `max_noops` frames of nothing, each its own."""
  ale = Emulator("freeway").ale
  ale.reset_game()
  after = []
  for _ in range(32):
    after.append(Emulator.frame(ale.getScreenGrayscale()).astype(int))
    ale.act(0)

  def numbers(resets, **options):
    """Returns how many no-ops each start can be after."""
    environment = environments.make_batched(
      "atari:freeway", 4, seed=0, **options
    )
    return [
      {n for n, frame in enumerate(after) if np.abs(frame - start).max() <= 1}
      for _ in range(resets)
      for start in environment.reset().observation[:, -1].astype(int)
    ]

  found = [min(one) for one in numbers(1)]
  assert len(set(found)) > 2 and max(found) > 3
  assert all(0 in one for one in numbers(1, max_noops=0))
  # From none to the largest number, both included.
  assert {min(one) for one in numbers(4, max_noops=3)} == {0, 1, 2, 3}


def test_no_limit():
  """0 frames are no limit, and the games go on."""
  environment = environments.make_batched(
    "atari:pong", 2, seed=0, max_frames_per_episode=0
  )
  trace = playing.play(environment, 100)
  assert all((step.step_type == MID).all() for step in trace[1:])


@pytest.mark.parametrize(
  "name,rom", [("MsPacman", "ms_pacman"), ("UpNDown", "up_n_down"),
               ("pong", "pong"), ("PONG", "pong"), ("Up_n_down", "up_n_down")],
)
def test_names(name, rom):
  assert atari.rom_name(name) == rom
  environments.make_batched(f"atari:{name}", 1, seed=0)


@pytest.mark.parametrize("protocol", ["papers", "machado"])
def test_protocols(protocol):
  """Each is what its options say, and an option of its own wins."""
  options = atari.PROTOCOLS[protocol]

  def trace(**kwargs):
    environment = environments.make_batched(
      "atari:breakout", 2, seed=0, **kwargs
    )
    steps = playing.play(environment, 200)
    return environment.action_spec().num_values, [
      np.stack([getattr(step, name) for step in steps])
      for name in ("observation", "reward", "discount", "step_type")
    ]

  number, named = trace(protocol=protocol)
  spelled_number, spelled = trace(
    protocol="machado" if protocol == "papers" else "papers", **options
  )
  assert number == spelled_number == {"papers": 4, "machado": 18}[protocol]
  for one, other in zip(named, spelled, strict=True):
    np.testing.assert_array_equal(one, other)
  with pytest.raises(ValueError, match="Did you mean 'machado'"):
    trace(protocol="machdo")


def test_the_newest_frame_is_drawn():
  environment = environments.make_batched("atari:breakout", 2, seed=0)
  steps = [environment.reset()]
  for t in range(40):
    picture = environment.render()
    assert picture.shape == (252, 252, 3) and picture.dtype == np.uint8
    for channel in range(3):
      np.testing.assert_array_equal(
        picture[::3, ::3, channel], steps[-1].observation[0, -1]
      )
    steps.append(environment.step(np.array([t % 4, 0])))


def test_every_game_of_the_benchmark_is_there():
  assert len(scores.atari_57()) == 57
  assert set(scores.atari_57()) <= set(roms.get_all_rom_ids())
