"""Results that papers report on Atari-57, by protocol."""

import functools
import importlib.resources

import pandas as pd

from acme_stac.evaluation import scores

# Returns with lives and without noise ("papers") are never mixed with those
# with sticky actions ("machado").
PROTOCOLS = ("papers", "machado")
REMARK = (
  "The column of STACX (Oh et al. (2025), DiscoRL, extended data, table 1) has"
  " a median of 301%, the paper of STACX reports 364%: the per-game scores are"
  " another publication's. In the same way IMPALA has 192% where it was"
  " published, and 243% as the paper of STACX ran it."
)
_DATA = importlib.resources.files("acme_stac.evaluation") / "data"


def figures() -> list[list[str]]:
  """Returns the papers' figures: agent, measure, value and source of each."""
  with (_DATA / "papers_figures.csv").open(encoding="utf-8") as file:
    return pd.read_csv(file, dtype=str).to_numpy().tolist()


@functools.cache
def _returns() -> pd.DataFrame:
  """Reads mean returns by game; columns are protocol, agent and source."""
  with (_DATA / "atari57_published_scores.csv").open(encoding="utf-8") as file:
    table = pd.read_csv(file, header=[0, 1, 2], index_col=0, dtype=str)
  # Some cells are "mean ± standard deviation".
  return table.apply(lambda x: x.str.partition("±")[0].astype(float))


def returns(game: str, protocol: str) -> pd.Series:
  """Returns the mean returns of papers' agents in a game, by (agent, source).

  Args:
    game: one of `scores.atari_57()`.
    protocol: one of `PROTOCOLS`.
  """
  return _returns()[protocol].loc[game]


def medians(protocol: str) -> pd.Series:
  """Returns median human-normalised scores by (agent, source).

  That of STACX is 3.01, while its paper reports 3.64: see `REMARK`.

  Args:
    protocol: one of `PROTOCOLS`.
  """
  return _returns()[protocol].apply(lambda column: pd.Series({
    game: scores.human_normalised_score(game, value)
    for game, value in column.items()
  }).median())
