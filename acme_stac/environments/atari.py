"""Atari through ale-py's vector environment: everything per frame is C++."""

import re
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import base

try:
  import ale_py.roms
  import gymnasium
  from ale_py.vector_env import AtariVectorEnv
except ImportError as error:
  raise ImportError(
    "ale-py is not installed; 'make setup' installs it, or pip install ale-py."
  ) from error

# Defaults of the options. "papers": Espeholt et al. (2018), whom Zahavy et al.
# (2020) follow. "machado": Machado et al. (2018), table 2.
PROTOCOLS: dict[str, dict[str, Any]] = {
  "papers": {
    "life_loss_is_terminal": True,
    "sticky_action_probability": 0.0,
    "full_action_set": False,
    "max_noops": 30,
  },
  "machado": {
    "life_loss_is_terminal": False,
    "sticky_action_probability": 0.25,
    "full_action_set": True,
    "max_noops": 0,
  },
}

# The library ends a game at once if the limit is 0.
_NO_LIMIT = 2**31 - 1
_FRAME_SKIP = 4
_STACK = 4
_SIZE = 84
# Of the full action set.
NUM_ACTIONS = 18
# A frame is drawn this many times as large.
_DRAWN_SCALE = 3


def rom_name(game: str) -> str:
  """Returns a game's ROM, such as "ms_pacman" for Gymnasium's "MsPacman"."""
  if "_" in game or game in (game.lower(), game.upper()):
    return game.lower()
  return re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower()


class Atari(base.BatchedEnvironment):
  """N copies of a game with the papers' preprocessing.

  An observation is a stack of four 84×84 frames, uint8 [4, 84, 84], oldest
  first; each frame is the maximum of the grey screens of the last two of four
  repeated ones. Rewards are the game's own: the learner clips them.
  """

  action_repeat = _FRAME_SKIP

  def __init__(
    self,
    level: str,
    num_environments: int,
    seed: int,
    *,
    protocol: str = "papers",
    life_loss_is_terminal: bool | None = None,
    sticky_action_probability: float | None = None,
    full_action_set: bool | None = None,
    max_noops: int | None = None,
    max_frames_per_episode: int = 108_000,
    num_threads: int = 0,
  ):
    """Makes the environments.

    Args:
      level: name of the ROM, for example "pong" or "ms_pacman".
      num_environments: members of the batch.
      seed: members are seeded with seed, seed + 1, ...
      protocol: name in `PROTOCOLS` of the defaults of the next four options.
      life_loss_is_terminal: give discount 0 when a life is lost, as IMPALA did.
        The game goes on, and episodes and their returns are whole games.
      sticky_action_probability: probability to repeat the previous action
        (Machado et al. 2018: 0.25).
      full_action_set: offer all 18 actions instead of those that the game uses.
      max_noops: a game starts with 0 to this many no-ops, uniformly.
      max_frames_per_episode: cut games off after this many frames, where values
        bootstrap; 0 for no limit.
      num_threads: threads that step the members; 0 for ale-py's choice.

    Raises:
      ValueError: for an unknown game or protocol, with near matches, and for an
        option out of its range.
    """
    rom = rom_name(level)
    games = ale_py.roms.get_all_rom_ids()
    if rom not in games:
      raise ValueError(checks.unknown("Atari game", level, games))
    if protocol not in PROTOCOLS:
      raise ValueError(checks.unknown("Atari protocol", protocol, PROTOCOLS))
    given: dict[str, Any] = {
      "life_loss_is_terminal": life_loss_is_terminal,
      "sticky_action_probability": sticky_action_probability,
      "full_action_set": full_action_set,
      "max_noops": max_noops,
    }
    options = {
      name: PROTOCOLS[protocol][name] if value is None else value
      for name, value in given.items()
    }
    sticky, noops = options["sticky_action_probability"], options["max_noops"]
    checks.check_number("sticky_action_probability", sticky, 0, 1, below=True)
    checks.check_integer("max_noops", noops, minimum=0)
    checks.check_integer(
      "max_frames_per_episode", max_frames_per_episode, 0, _NO_LIMIT
    )
    checks.check_integer("num_threads", num_threads, 0, checks.MAX_SIZE)
    self.num_environments = num_environments
    self._seed = seed
    self._life_loss_is_terminal = options["life_loss_is_terminal"]
    self._vector = AtariVectorEnv(
      rom,
      num_environments,
      num_threads=num_threads,
      max_num_frames_per_episode=max_frames_per_episode or _NO_LIMIT,
      repeat_action_probability=sticky,
      full_action_space=options["full_action_set"],
      img_height=_SIZE,
      img_width=_SIZE,
      stack_num=_STACK,
      frameskip=_FRAME_SKIP,
      # The library draws from one less than this; 0 draws nothing.
      noop_max=noops and noops + 1,
      # It does not report a life that leaves none while the game goes on.
      life_loss_info=False,
      reward_clipping=False,
      use_fire_reset=False,
    )
    space = self._vector.single_action_space
    assert isinstance(space, gymnasium.spaces.Discrete)
    self._num_actions = int(space.n)
    self._lives = np.zeros(num_environments, np.int32)
    self._ended = np.zeros(num_environments, bool)
    self._newest_frame = np.zeros((_SIZE, _SIZE), np.uint8)

  def reset(self) -> dm_env.TimeStep:
    observation, info = self._vector.reset(seed=self._seed)
    # A later reset must not repeat the first games.
    self._seed += self.num_environments
    self._lives = info["lives"].copy()
    self._ended = np.zeros(self.num_environments, bool)
    self._newest_frame = observation[0, -1]
    return base.first_time_step(observation, self.num_environments)

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    self.send(actions)
    return self.receive()

  def send(self, actions: np.ndarray):
    """Starts a step in the library's own threads."""
    # The library waits forever for an action that it does not know.
    base.check_choices(actions, self._num_actions, self.num_environments)
    self._vector.send(np.asarray(actions, np.int32))

  def receive(self) -> dm_env.TimeStep:
    first = self._ended
    observation, reward, terminated, truncated, info = self._vector.recv()
    self._newest_frame = observation[0, -1]
    # With 0 lives left, some games go on (bank_heist) and others are over.
    life_lost = (info["lives"] < self._lives) & ~first
    self._lives = info["lives"].copy()
    self._ended = terminated | truncated
    step = base.time_step(observation, reward, first, terminated, truncated)
    if self._life_loss_is_terminal:
      step.discount[life_lost] = 0.0
    return step

  def render(self) -> np.ndarray:
    """Draws the newest preprocessed frame; ale-py gives no other screen."""
    frame = self._newest_frame.repeat(_DRAWN_SCALE, axis=0)
    grey = frame.repeat(_DRAWN_SCALE, axis=1)
    return np.stack([grey] * 3, axis=-1)

  def observation_spec(self) -> specs.BoundedArray:
    return specs.BoundedArray(
      (_STACK, _SIZE, _SIZE), np.uint8, 0, 255, name="frames"
    )

  def action_spec(self) -> specs.DiscreteArray:
    return specs.DiscreteArray(self._num_actions)
