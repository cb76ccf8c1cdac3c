"""Normalised scores: relative to random and human play, or to a range."""

import csv
import functools
import importlib.resources
from typing import Any

from acme_stac import checks


@functools.cache
def _table() -> dict[str, tuple[float, float]]:
  path = importlib.resources.files("acme_stac.evaluation") / "data"
  with (path / "atari57_human_random.csv").open() as file:
    return {
      row["game"]: (float(row["random"]), float(row["human"]))
      for row in csv.DictReader(file)
    }


def atari_57() -> tuple[str, ...]:
  """Returns the names of the benchmark's 57 games."""
  return tuple(_table())


def human_normalised_score(game: str, episode_return: float) -> float:
  """Returns (return − random) / (human − random): 1 is the human's level.

  Args:
    game: one of `atari_57()`.
    episode_return: mean raw return of whole games.

  Raises:
    ValueError: for another game, with near matches.
  """
  if game not in _table():
    raise ValueError(checks.unknown("game of Atari-57", game, _table()))
  random, human = _table()[game]
  return (episode_return - random) / (human - random)


# Returns of 0 and of 1 after normalisation, where a task has both.
_RANGES = {
  "catch": (-1.0, 1.0, "return −1 is 0, return 1 is 1"),
  "gymnasium:CartPole-v1": (0.0, 500.0, "share of the 500 steps"),
}
# Families of environments whose episodes of 1,000 steps have such returns.
CONTROL_FAMILIES = ("control", "control_pixels", "rwrl")
_UNIT = (0.0, 1000.0, "share of the largest return, 1000")


def _reference(task: str) -> tuple[float, float, str] | None:
  """Returns the returns that count as 0 and 1, and what that means."""
  if task.partition(":")[0] in CONTROL_FAMILIES:
    return _UNIT
  game = game_of(task)
  if game is not None:
    return *_table()[game], "human-normalised"
  return _RANGES.get(task)


def game_of(task: str) -> str | None:
  """Returns the game of `atari_57` that a task is, None for any other."""
  family, _, level = task.partition(":")
  if family != "atari":
    return None
  # Brings the emulator, which other tasks do without.
  from acme_stac.environments import atari

  game = atari.rom_name(level)
  return game if game in _table() else None


def normalised(task: str, episode_return: Any) -> Any:
  """Returns a return, or an array of them, on a scale that tasks share.

  Games of Atari-57 are human-normalised, returns of DM control and Real-World
  RL are shares of 1,000, those of CartPole and Catch of their ranges.

  Args:
    task: the environment's name.
    episode_return: in the task's own units.

  Raises:
    ValueError: if the task has no such scale, see `has_scale`.
  """
  reference = _reference(task)
  if reference is None:
    raise ValueError(f"Nothing says which returns of {task!r} are good.")
  low, high, _ = reference
  return (episode_return - low) / (high - low)


def has_scale(task: str) -> bool:
  """Returns whether `normalised` knows a task."""
  return _reference(task) is not None


def describe_scale(task: str) -> str:
  """Returns in words what `normalised` does; raises ValueError as it does."""
  reference = _reference(task)
  if reference is None:
    raise ValueError(f"Nothing says which returns of {task!r} are good.")
  return reference[2]
