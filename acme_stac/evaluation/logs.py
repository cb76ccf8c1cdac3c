"""Reads the CSV logs of a work directory as tables."""

import io
import math
import pathlib
import re
from collections.abc import Sequence

import pandas as pd

LEARNER = pathlib.Path("logs", "learner.csv")
EVALUATOR = pathlib.Path("logs", "evaluator.csv")

# The papers' symbols of the metaparameters, by the name in the log.
SYMBOLS = {
  "discount": "γ",
  "lambda_": "λ",
  "value_cost": "g_v / outer g_v",
  "policy_cost": "g_p / outer g_p",
  "entropy_cost": "g_e / outer g_e",
  "alpha": "α",
  "alpha_rho": "α_ρ",
  "alpha_c": "α_c",
  "clip_threshold": "ρ̄ = c̄ / outer ρ̄",
}
_SIGMA = re.compile(r"sigma_(.+)_head(\d+)")


def read(path: pathlib.Path, step: str | None = None) -> pd.DataFrame:
  """Reads a log as a table of floats.

  Rows that a killed process or a full disk left half written are dropped. Text
  becomes NaN.

  Args:
    path: a CSV file, which may be missing.
    step: name of a column that increases. Where it falls back, a run resumed
      from an older checkpoint, and the rows that it repeats are dropped.

  Returns:
    A row per row of the log; an empty table if there is none.

  Raises:
    OSError: if the file cannot be read.
    KeyError: if it has rows but no column `step`.
  """
  if not path.exists():
    return pd.DataFrame()
  head, *rows = path.read_text().splitlines() or [""]
  whole = [row for row in rows if row.count(",") == head.count(",")]
  if not head or not whole:
    return pd.DataFrame()
  table = pd.read_csv(
    io.StringIO("\n".join([head, *whole])), float_precision="round_trip"
  ).apply(pd.to_numeric, errors="coerce").astype(float)
  if step is not None:
    table = table[table[step].notna()]
    lowest_later = table[step][::-1].cummin()[::-1].shift(-1)
    table = table[table[step] < lowest_later.fillna(math.inf)]
  return table.reset_index(drop=True)


def read_learner(workdir: pathlib.Path) -> pd.DataFrame:
  """Reads the learner's log of a work directory, see `read`."""
  return read(workdir / LEARNER, "learner_steps")


def read_evaluator(workdir: pathlib.Path) -> pd.DataFrame:
  """Reads the evaluator's log of a work directory, see `read`."""
  return read(workdir / EVALUATOR, "learner_steps")


def sigma_columns(tables: Sequence[pd.DataFrame]) -> dict[str, dict[int, str]]:
  """Finds the columns of σ(η) that all tables have.

  Returns:
    Name of the metaparameter, in the order of `SYMBOLS` -> head -> column.
  """
  shared = set.intersection(*(set(table.columns) for table in tables))
  matches = [match for name in shared if (match := _SIGMA.fullmatch(name))]
  heads = {
    name: {int(m[2]): m[0] for m in matches if m[1] == name} for name in SYMBOLS
  }
  return {
    name: dict(sorted(of_name.items()))
    for name, of_name in heads.items() if of_name
  }
