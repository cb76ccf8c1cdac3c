"""Results that papers report on Atari-57, by protocol."""

import functools
import importlib.resources
from typing import NamedTuple

import numpy as np
import pandas as pd

from acme_stac.evaluation import scores

# Returns with lives and without noise ("papers") are never mixed with those
# with sticky actions ("machado").
PROTOCOLS = ("papers", "machado")


class Column(NamedTuple):
  """A column of the table of published scores.

  Attributes:
    agent: name of the agent.
    source: publication.
    protocol: one of `PROTOCOLS`.
  """

  agent: str
  source: str
  protocol: str


_CLEANBA = "Huang et al. (2023), Cleanba, 3 seeds, 1 A100 and 10 CPU cores"
_STACX = Column(
  "STACX", "Oh et al. (2025), DiscoRL, extended data, table 1", "papers"
)
_COLUMNS = {
  "impala_espeholt2018_deep": Column(
    "IMPALA, deep", "Espeholt et al. (2018)", "papers"
  ),
  "stacx_200M(DiscoRL Ext.Table1)": _STACX,
  **{
    f"{name} 1 A100 10 CPU (Machado protocol; mean ± sd 3 seeds)": Column(
      agent, _CLEANBA, "machado"
    )
    for name, agent in (
      ("Monobeast IMPALA", "MonoBeast IMPALA"),
      ("Moolib IMPALA", "Moolib IMPALA"),
      ("Cleanba IMPALA", "Cleanba IMPALA"),
      ("Cleanba PPO (Sync)", "Cleanba PPO"),
    )
  },
}
REMARK = (
  f"The column of STACX ({_STACX.source}) has a median of 301%, the paper of"
  " STACX reports 364%: the per-game scores are another publication's. In the"
  " same way IMPALA has 192% where it was published, and 243% as the paper of"
  " STACX ran it."
)


def _read(name: str) -> pd.DataFrame:
  folder = importlib.resources.files("acme_stac.evaluation") / "data"
  with (folder / name).open(encoding="utf-8") as file:
    return pd.read_csv(file, dtype=str)


def figures() -> list[list[str]]:
  """Returns the papers' figures: agent, measure, value and source of each."""
  return _read("papers_figures.csv").to_numpy().tolist()


@functools.cache
def _scores() -> pd.DataFrame:
  """Returns mean scores by game, in the columns of `_COLUMNS`."""
  table = _read("atari57_published_scores.csv").set_index("game")
  # Some cells are "mean ± standard deviation".
  return table[list(_COLUMNS)].apply(
    lambda column: column.str.partition("±")[0].astype(float)
  )


def _columns(protocol: str) -> dict[str, Column]:
  if protocol not in PROTOCOLS:
    raise ValueError(
      f"protocol must be 'papers' or 'machado', got {protocol!r}."
    )
  return {n: c for n, c in _COLUMNS.items() if c.protocol == protocol}


def returns(game: str, protocol: str) -> dict[Column, float]:
  """Returns the mean return of papers' agents in a game.

  Args:
    game: one of `scores.atari_57()`.
    protocol: one of `PROTOCOLS`.

  Raises:
    ValueError: for an unknown game or protocol.
  """
  scores.human_normalised_score(game, 0.0)
  row = _scores().loc[game]
  return {c: float(row[name]) for name, c in _columns(protocol).items()}


def medians(protocol: str) -> dict[Column, float]:
  """Returns the median human-normalised score of each column.

  That of STACX is 3.01, while its paper reports 3.64: see `REMARK`.

  Args:
    protocol: one of `PROTOCOLS`.

  Raises:
    ValueError: for an unknown protocol.
  """
  return {
    column: float(np.median([
      scores.human_normalised_score(game, value)
      for game, value in _scores()[name].items()
    ]))
    for name, column in _columns(protocol).items()
  }
