"""Finds runs, and exports what a report needs of them."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from acme_stac.config import STACConfig
from acme_stac.evaluation import logs, summary
from acme_stac.evaluation.text import printable

STEPS, SECONDS = "environment_steps", "seconds"
# Settings that only say how long a run is.
NO_SETTINGS = ("num_environment_steps",)
# Prefix of an environment's options among the settings.
OPTION = "environment_options."
# Share of a run's rows in which α_ρ ≥ α_c, by head.
ALPHA_ORDER = "alpha_order_share_head"

_CONFIG = "config.json"
_RUNS, _CURVES, _SETTINGS = "runs.csv", "curves.csv", "settings.json"
_DESCRIPTION = ("name", "task", "agent", "settings", "seed", "finished")
# Columns of the curves.
_EXPORTED = (
  "^(environment_steps|learner_steps|seconds|episode_return|sigma_.*)$"
)
_EXPORTED_ROWS = 40


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One run, from its work directory or from exported data.

  Attributes:
    name: path where it was found.
    task: the environment's name.
    agent: the agent preset's name.
    settings: the agent's hyperparameters, and the environment's options, whose
      names begin with `OPTION`.
    seed: of the run.
    finished: whether it made all its updates.
    figures: `summary.summarise_run`, "training_seconds", and `ALPHA_ORDER` of
      each head.
    curves: the learner's log, with a column of seconds of training.
  """

  name: str
  task: str
  agent: str
  settings: Mapping[str, Any]
  seed: int
  finished: bool
  figures: Mapping[str, Any]
  curves: pd.DataFrame = dataclasses.field(repr=False)

  def __post_init__(self):
    """Raises ValueError if an axis of the curves is damaged."""
    for axis in (STEPS, SECONDS) if len(self.curves) else ():
      values = self.curves[axis].to_numpy()
      if not np.isfinite(values).all() or (np.diff(values) < 0).any():
        raise ValueError(f"{axis} must be finite and never fall.")

  @functools.cached_property
  def steps(self) -> np.ndarray:
    """Environment steps of the rows of `curves`."""
    return self.ends_at(STEPS)

  def ends_at(self, axis: str) -> np.ndarray:
    """Returns an axis of the curves; empty if the run has no row yet."""
    return self.curves[axis].to_numpy() if len(self.curves) else np.zeros(0)

  def interpolated(
    self, column: str, at: Any, axis: str, hold: bool = False
  ) -> np.ndarray:
    """Returns a curve's values at points of an axis.

    Args:
      column: of `curves`.
      at: points of the axis.
      axis: `STEPS` or `SECONDS`.
      hold: whether the last value holds beyond the end; NaN otherwise.
    """
    at = np.asarray(at, float)
    if column not in self.curves:
      return np.full(at.shape, math.nan)
    known = self.curves[np.isfinite(self.curves[column])]
    if known.empty:
      return np.full(at.shape, math.nan)
    x, y = known[axis].to_numpy(), known[column].to_numpy()
    values = np.interp(at, x, y)
    beyond = at > x[-1] * (1 + 1e-9)
    return values if hold else np.where(beyond, math.nan, values)

  def value_at(self, column: str, at: float, axis: str = STEPS) -> float:
    """Returns a curve's value at one point of an axis, NaN beyond its end."""
    return float(self.interpolated(column, at, axis))

  def mean_return(self, end: float) -> float:
    """Returns the mean return over training up to an environment step."""
    if end >= self.steps[-1]:
      return float(self.figures["mean_return"])
    x = np.append(self.steps[self.steps < end], end)
    return summary.mean_over_steps(
      x, self.interpolated("episode_return", x, STEPS)
    )


class Found(NamedTuple):
  """Runs that were found.

  Attributes:
    runs: each once.
    problems: a sentence for each directory that was left out.
  """

  runs: list[Run]
  problems: list[str]


def find(paths: Iterable[pathlib.Path | str]) -> Found:
  """Finds the runs in or below directories.

  A run found twice, as a work directory or in exported data, counts once; of an
  unfinished run that was exported and went on, only the later state counts.
  Directories that are damaged, or have not begun, are left out and named.

  Args:
    paths: work directories of programs.train, directories that contain some,
      and directories that `export` wrote. Links are followed.

  Raises:
    ValueError: if a path contains no run.
  """
  found: dict[tuple[Any, ...], Run] = {}
  problems: list[str] = []
  for path in map(pathlib.Path, paths):
    runs: list[Run] = []
    of_path: list[str] = []
    if not path.is_dir():
      raise ValueError(
        f"There is no directory {printable(path)}. Give work directories of"
        " programs.train, or directories that contain some."
      )
    for directory, files in _walk(path):
      try:
        if {_RUNS, _SETTINGS} <= files:
          runs += _read_exported(directory)
        if _CONFIG in files:
          runs.append(_read_work_directory(directory))
        elif "sweep.log" in files:
          of_path.append(
            f"{directory} has not begun, or failed before: see sweep.log."
          )
      # Other programs' files, and damaged ones, may raise anything.
      except Exception as error:
        of_path.append(
          f"{directory} cannot be read as a run: {type(error).__name__}:"
          f" {error}"
        )
    if not runs:
      raise ValueError(" ".join([
        f"{printable(path)} has no run: neither it nor a directory below is a"
        f" work directory of programs.train (with a {_CONFIG}) or data that a"
        f" report kept (with {_RUNS} and {_SETTINGS}).",
        *map(printable, of_path[:3]),
      ]))
    for run in runs:
      found.setdefault(_identity(run), run)
    problems += of_path
  latest: dict[tuple[Any, ...], float] = {}
  for run in found.values():
    origin = _origin(run)
    latest[origin] = max(latest.get(origin, 0), _learner_steps(run))
  return Found(
    [
      run for run in found.values()
      if run.finished or _learner_steps(run) == latest[_origin(run)]
    ],
    [printable(problem) for problem in dict.fromkeys(problems)],
  )


def _learner_steps(run: Run) -> float:
  return run.figures["learner_steps"] if len(run.curves) else 0


def _identity(run: Run) -> tuple[Any, ...]:
  """Returns what copies of one run share, and no other run has."""
  names = ("learner_steps", "final_return", "mean_return")
  return (
    run.task, run.agent, run.seed, json.dumps(run.settings),
    # As exported.
    *[f"{float(run.figures.get(name, 0.0)):.5g}" for name in names],
  )


def _origin(run: Run) -> tuple[Any, ...]:
  """Returns what the states of one run at different times share."""
  settings = {n: v for n, v in run.settings.items() if n not in NO_SETTINGS}
  return run.name, run.task, run.agent, run.seed, json.dumps(settings)


def _walk(path: pathlib.Path) -> Iterator[tuple[pathlib.Path, set[str]]]:
  """Yields directories with the names of their files, each once, in order."""
  seen: set[str] = set()
  for directory, below, files in os.walk(path, followlinks=True):
    real = os.path.realpath(directory)
    if real in seen:
      below.clear()
      continue
    seen.add(real)
    below.sort()
    yield pathlib.Path(directory), set(files)


def _read_work_directory(workdir: pathlib.Path) -> Run:
  described = json.loads((workdir / _CONFIG).read_text())
  settings = {
    **described["config"],
    **{
      OPTION + name: value
      for name, value in described["environment_options"].items()
    },
    **({"networks": n} if (n := described.get("networks")) else {}),
  }
  figures = summary.summarise_run(workdir)
  log = _with_seconds(logs.read_learner(workdir))
  return Run(
    name=printable(workdir),
    task=described["environment"],
    agent=described["agent"],
    settings=settings,
    seed=described["seed"],
    finished=figures.get("learner_steps", 0) >= _num_updates(settings),
    figures={
      **figures, **_alpha_order(log),
      "training_seconds": float(log[SECONDS].iloc[-1]) if len(log)
      else math.nan,
    },
    curves=log,
  )


def _alpha_order(log: pd.DataFrame) -> dict[str, float]:
  """Returns by head the share of rows in which α_ρ ≥ α_c; {} without them."""
  found = logs.sigma_columns([log])
  if not {"alpha_rho", "alpha_c"} <= set(found):
    return {}
  return {
    f"{ALPHA_ORDER}{head}": float(
      (log[column] >= log[found["alpha_c"][head]]).mean()
    )
    for head, column in found["alpha_rho"].items()
  }


def _num_updates(settings: Mapping[str, Any]) -> int:
  names = {field.name for field in dataclasses.fields(STACConfig)}
  return STACConfig(
    **{name: value for name, value in settings.items() if name in names}
  ).num_updates


def _with_seconds(log: pd.DataFrame) -> pd.DataFrame:
  """Returns a log with the seconds of training since its first row.

  Compilation precedes the first row, and the time between a stop and a
  resumption does not count. A rate of 0 over more than 0 steps is damage: the
  seconds become infinite, and `Run` rejects them.
  """
  if log.empty:
    return log
  steps = log[STEPS].diff().fillna(log[STEPS])
  seconds = (
    (steps / log["environment_steps_per_second"]).where(steps != 0, 0.0)
  ).cumsum()
  return log.assign(**{SECONDS: seconds - seconds[0]})


def export(runs: Sequence[Run], directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes what reports need of runs, for `find`; returns the files.

  runs.csv has a row for each run, curves.csv up to 40 rows of each one's log,
  and settings.json the settings that runs.csv refers to by number.
  """
  directory.mkdir(parents=True, exist_ok=True)
  settings: list[Mapping[str, Any]] = []
  rows, curves = [], []
  for number, run in enumerate(runs):
    if run.settings not in settings:
      settings.append(run.settings)
    described = {name: getattr(run, name) for name in _DESCRIPTION}
    rows.append({
      "run": number, **described, "settings": settings.index(run.settings),
      **{name: _rounded(value) for name, value in run.figures.items()},
    })
    kept = np.unique(
      np.linspace(0, len(run.curves) - 1, _EXPORTED_ROWS).astype(int)
    )
    if len(run.curves):
      of_run = run.curves.filter(regex=_EXPORTED).iloc[kept]
      curves.append(of_run.assign(run=number))
  pd.DataFrame(rows).to_csv(directory / _RUNS, index=False)
  pd.concat([pd.DataFrame({"run": []}), *curves]).to_csv(
    directory / _CURVES, index=False, float_format="%.6g"
  )
  (directory / _SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
  return [directory / name for name in (_RUNS, _CURVES, _SETTINGS)]


def _rounded(value: Any) -> Any:
  """Returns a number with as many digits as a plot or a table needs."""
  return float(f"{value:.6g}") if isinstance(value, float) else value


def _read_exported(directory: pathlib.Path) -> list[Run]:
  settings = json.loads((directory / _SETTINGS).read_text())
  rows = pd.read_csv(
    directory / _RUNS, dtype=dict.fromkeys(("name", "task", "agent"), str),
    keep_default_na=False, na_values=[""],
  )
  curves = pd.read_csv(directory / _CURVES)
  runs = []
  for row in rows.to_dict("records"):
    mine = curves[curves["run"] == row.pop("run")].drop(columns="run")
    mine = mine.dropna(axis="columns", how="all").reset_index(drop=True)
    described = {str(name): row.pop(name) for name in _DESCRIPTION}
    described["settings"] = settings[described["settings"]]
    kept = {
      name: value for name, value in row.items()
      if not str(name).startswith(ALPHA_ORDER) or not math.isnan(value)
    }
    runs.append(
      Run(figures={**_alpha_order(mine), **kept}, curves=mine, **described)
    )
  return runs
