"""Scores of Atari-57 relative to random play and to a human player."""

import csv
import functools
import importlib.resources

from acme_stac import config


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
    raise ValueError(config.unknown("game of Atari-57", game, _table()))
  random, human = _table()[game]
  return (episode_return - random) / (human - random)
