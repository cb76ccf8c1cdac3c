"""Normalised scores: relative to random and human play, or to a range."""

import csv
import functools
import importlib.resources
import math
from typing import Any, NamedTuple

from acme_stac import checks

# Families of environments whose episodes have returns in [0, 1000].
CONTROL_FAMILIES = ("control", "control_pixels", "playground", "rwrl")


class Scale(NamedTuple):
  """A scale of returns that tasks share.

  Attributes:
    low: return that scores 0.
    high: return that scores 1.
    meaning: of the scores, in words.
  """

  low: float
  high: float
  meaning: str

  def normalised(self, returns: Any) -> Any:
    """Returns the score of a return, or of an array of them."""
    return (returns - self.low) / (self.high - self.low)


_CONTROL = Scale(0.0, 1000.0, "share of the largest return, 1000")
_SCALES = {
  "catch": Scale(-1.0, 1.0, "return −1 is 0, return 1 is 1"),
  "gymnasium:CartPole-v1": Scale(0.0, 500.0, "share of the 500 steps"),
}
# MinAtar's games -> mean return of uniformly random actions, of 4,096 episodes
# (docs/data/minatar_random.py). Young & Tian (2019) give no other returns than
# curves.
_MINATAR_RANDOM = {
  "gymnax:Asterix-MinAtar": 0.49,
  "gymnax:Breakout-MinAtar": 0.40,
  "gymnax:Freeway-MinAtar": 0.42,
  "gymnax:Seaquest-MinAtar": 0.10,
  "gymnax:SpaceInvaders-MinAtar": 4.25,
}


@functools.cache
def _atari_scales() -> dict[str, Scale]:
  folder = importlib.resources.files("acme_stac.evaluation") / "data"
  with (folder / "atari57_human_random.csv").open() as file:
    return {
      row["game"]: Scale(
        float(row["random"]), float(row["human"]), "human-normalised"
      )
      for row in csv.DictReader(file)
    }


def atari_57() -> tuple[str, ...]:
  """Returns the names of the benchmark's 57 games."""
  return tuple(_atari_scales())


def human_normalised_score(game: str, episode_return: float) -> float:
  """Returns (return − random) / (human − random): 1 is the human's level.

  Args:
    game: one of `atari_57()`.
    episode_return: mean raw return of whole games.

  Raises:
    ValueError: for another game, with near matches.
  """
  games = _atari_scales()
  if game not in games:
    raise ValueError(checks.unknown("game of Atari-57", game, games))
  return games[game].normalised(episode_return)


def game_of(task: str) -> str | None:
  """Returns the game of `atari_57()` that a task is, None for any other."""
  family, _, level = task.partition(":")
  if family != "atari":
    return None
  # Imports the emulator, which other tasks do not need.
  from acme_stac.environments import atari

  game = atari.rom_name(level)
  return game if game in _atari_scales() else None


def is_minatar(task: str) -> bool:
  """Returns whether a task is one of MinAtar's games."""
  return task in _MINATAR_RANDOM


def scale_of(task: str) -> Scale | None:
  """Returns the scale of a task's returns, None if none is defined.

  Games of Atari-57 are human-normalised, returns of DM control and Real-World
  RL are shares of 1,000, those of CartPole and Catch of their ranges.
  """
  if task.partition(":")[0] in CONTROL_FAMILIES:
    return _CONTROL
  game = game_of(task)
  return _SCALES.get(task) if game is None else _atari_scales()[game]


def relative_scale(
  task: str, agent: str, mean: float, low: float = math.nan
) -> Scale | None:
  """Returns the scale of a game of MinAtar on which an agent scores 1.

  Args:
    task: name of the environment.
    agent: name of the agent.
    mean: its return.
    low: lower end of that return's interval; NaN without one.

  Returns:
    None for other tasks, and if the agent is not better than random play.
  """
  random = _MINATAR_RANDOM.get(task, math.inf)
  if not mean > random or low <= random:
    return None
  return Scale(random, mean, f"random play is 0, the mean of {agent} is 1")
