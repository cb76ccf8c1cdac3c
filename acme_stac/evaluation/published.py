"""What papers report on Atari-57, by protocol, beside runs of one's own."""

import csv
import importlib.resources
from typing import NamedTuple

import numpy as np

from acme_stac.evaluation import scores

PROTOCOLS = ("papers", "machado")


class Column(NamedTuple):
  """A column of the table of published scores.

  Attributes:
    agent: whose scores they are.
    source: where they are published.
    protocol: one of `PROTOCOLS`. They are never mixed: returns with lives and
      without noise say nothing about returns with sticky actions.
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


class Figure(NamedTuple):
  """One number of a paper.

  Attributes:
    agent: whose.
    measure: what it measures.
    value: as the paper has it.
    source: where.
  """

  agent: str
  measure: str
  value: str
  source: str


_MEDIAN = "Atari-57, median human-normalised score, 200M frames"
_SELF_TUNING = "Zahavy et al. (2020)"
# What ALGORITHM of this project's sources quotes, table by table.
FIGURES = (
  Figure("IMPALA", _MEDIAN, "243%", _SELF_TUNING),
  Figure("IMPALA + fixed auxiliary tasks", _MEDIAN, "247%", _SELF_TUNING),
  Figure("STACX", _MEDIAN, "364%", _SELF_TUNING),
  Figure("STACX, α_ρ and α_c apart", _MEDIAN, "353%", _SELF_TUNING),
  Figure("STACX, truncation self-tuned", _MEDIAN, "301%", _SELF_TUNING),
  Figure("{γ, λ}", _MEDIAN, "240%", _SELF_TUNING),
  Figure("{γ, λ} with γ embedding", _MEDIAN, "280.6%", _SELF_TUNING),
  Figure("STACX with embedding, shared", _MEDIAN, "306.8%", _SELF_TUNING),
  Figure("STACX with embedding, per head", _MEDIAN, "307.7%", _SELF_TUNING),
  Figure(
    "IMPALA → self-tuned", "DM control from features, mean, 30M steps",
    "217 → 389", _SELF_TUNING,
  ),
  Figure(
    "IMPALA → self-tuned", "DM control from pixels, mean, 30M steps",
    "108 → 202", _SELF_TUNING,
  ),
  Figure(
    "IMPALA → self-tuned", "Real-World RL, mean, 30M steps", "195 → 295",
    _SELF_TUNING,
  ),
  Figure(
    "IMPALA, STAC, IMPALA + aux, STACX", "minutes, Atari on TPUs",
    "70, 71, 83, 84", _SELF_TUNING,
  ),
  Figure(
    "IMPALA, STAC, IMPALA + aux, STACX",
    "minutes, Atari, CPU actors and one GPU", "105, 129, 106, 133",
    _SELF_TUNING,
  ),
  Figure(
    "STACX over IMPALA", "perturbations of γ in which it is better", "72%",
    _SELF_TUNING,
  ),
  Figure(
    "STACX over IMPALA", "perturbations of g_v in which it is better", "80%",
    _SELF_TUNING,
  ),
  Figure(
    "STACX, α_ρ and α_c apart", "share of training with α_ρ ≥ α_c", "91.2%",
    _SELF_TUNING,
  ),
)


def _rows() -> list[dict[str, str]]:
  path = importlib.resources.files("acme_stac.evaluation") / "data"
  with (path / "atari57_published_scores.csv").open(encoding="utf-8") as file:
    return list(csv.DictReader(file))


def _mean(text: str) -> float:
  """Returns the number of "3826.03 ± 91.37", NaN for none."""
  value = text.partition("±")[0].strip()
  return float(value) if value else float("nan")


def _check(protocol: str):
  if protocol not in PROTOCOLS:
    raise ValueError(
      f"protocol must be 'papers' or 'machado', got {protocol!r}."
    )


def returns(game: str, protocol: str) -> dict[Column, float]:
  """Returns what agents of papers score in a game, their mean return.

  Args:
    game: of Atari-57, as `scores.atari_57` has it.
    protocol: "papers" (lives end returns, no sticky actions) or "machado".
      Agents of the other protocol are left out.

  Raises:
    ValueError: for an unknown game or protocol.
  """
  _check(protocol)
  scores.human_normalised_score(game, 0.0)
  (row,) = [row for row in _rows() if row["game"] == game]
  return {
    column: _mean(row[name])
    for name, column in _COLUMNS.items()
    if column.protocol == protocol
  }


def medians(protocol: str) -> dict[Column, float]:
  """Returns the median human-normalised score of each column.

  The column of STACX has a median of 3.01, while its paper reports 3.64 (see
  `FIGURES`): these are the scores of another publication.

  Args:
    protocol: as of `returns`.

  Raises:
    ValueError: for an unknown protocol.
  """
  _check(protocol)
  return {
    column: float(np.median([
      scores.human_normalised_score(row["game"], _mean(row[name]))
      for row in _rows()
    ]))
    for name, column in _COLUMNS.items()
    if column.protocol == protocol
  }


REMARK = (
  f"The column of STACX ({_STACX.source}) has a median of 301%, the paper of"
  " STACX reports 364%: the per-game scores are another publication's. In the"
  " same way IMPALA has 192% where it was published, and 243% as the paper of"
  " STACX ran it."
)
