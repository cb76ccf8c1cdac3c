"""Reads the CSV logs of a work directory as tables."""

import io
import math
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

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

# Column of runs that a program trained together with others: their number.
RUNS_SIDE_BY_SIDE = "runs_side_by_side"


def read_text(path: pathlib.Path) -> str:
  """Reads a text file.

  Raises:
    OSError: if it cannot be read, or is a pipe or device, which could block.
  """
  if path.exists() and not path.is_file():
    raise OSError(f"{path} is not a regular file.")
  return path.read_text()


def read(path: pathlib.Path, step: str | None = None) -> pd.DataFrame:
  """Reads a log as a table of floats.

  Drops rows that a killed process or a full disk left half written. Text
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
  head, *rows = read_text(path).splitlines() or [""]
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
  return read(workdir / "logs" / "learner.csv", "learner_steps")


def read_evaluator(workdir: pathlib.Path) -> pd.DataFrame:
  """Reads the evaluator's log of a work directory, see `read`."""
  return read(workdir / "logs" / "evaluator.csv", "learner_steps")


def read_actors(workdir: pathlib.Path) -> list[pd.DataFrame]:
  """Reads the logs of a work directory's actors that have rows, see `read`."""
  tables = [read(path) for path in (workdir / "logs").glob("actor_*.csv")]
  return [table for table in tables if not table.empty]


def over_lives(steps: pd.Series) -> pd.Series:
  """Returns what a process and those that replaced it made up to each row.

  Args:
    steps: counts of each life, which begins at 0.
  """
  made = steps.diff()
  return made.where(made >= 0, steps).cumsum()


def interpolate(
  table: pd.DataFrame, column: str, at: np.ndarray, axis: str,
  hold: bool = False,
) -> np.ndarray:
  """Returns a column's values at points of an axis, between its finite values.

  Args:
    table: rows in the order of the axis.
    column: of the table.
    at: points of the axis.
    axis: a column that never falls.
    hold: whether the last value holds beyond the end; NaN otherwise.
  """
  known = table[np.isfinite(table[column])]
  if known.empty:
    return np.full(np.shape(at), math.nan)
  x = known[axis].to_numpy()
  values = np.interp(at, x, known[column].to_numpy())
  beyond = at > x[-1] * (1 + 1e-9)
  return values if hold else np.where(beyond, math.nan, values)


def sigma_columns(tables: Sequence[pd.DataFrame]) -> dict[str, dict[int, str]]:
  """Finds the columns of σ(η) that all tables have.

  Returns:
    Name of the metaparameter, in the order of `SYMBOLS` -> head -> column.
  """
  shared = set.intersection(*(set(table.columns) for table in tables))
  found = {}
  for name in SYMBOLS:
    matches = (re.fullmatch(rf"sigma_{name}_head(\d+)", x) for x in shared)
    if heads := sorted((int(match[1]), match[0]) for match in matches if match):
      found[name] = dict(heads)
  return found
