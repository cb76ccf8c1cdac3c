"""Finds runs, and exports what a report needs of them."""

import dataclasses
import io
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
      each head; empty before the first row of the log.
    curves: the learner's log. Has the columns `STEPS`, `SECONDS` (of training)
      and "episode_return" even without rows.
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
    for axis in (STEPS, SECONDS):
      values = self.curves[axis].to_numpy()
      if not np.isfinite(values).all() or (np.diff(values) < 0).any():
        raise ValueError(f"{axis} must be finite and never fall.")

  @property
  def side_by_side(self) -> int:
    """Runs of the program that trained it, which shared its time."""
    return int(self.figures.get(logs.RUNS_SIDE_BY_SIDE, 1))

  @property
  def steps(self) -> np.ndarray:
    """Environment steps of the rows of `curves`."""
    return self.curves[STEPS].to_numpy()

  def end(self, axis: str = STEPS) -> float:
    """Returns the last point of an axis; the run must have rows."""
    return float(self.curves[axis].iloc[-1])

  def return_at(self, at: float, axis: str = STEPS) -> float:
    """Returns the return at a point of an axis, NaN beyond its end."""
    found = logs.interpolate(self.curves, "episode_return", np.array(at), axis)
    return float(found)

  def mean_return(self, end: float) -> float:
    """Returns the mean return over training up to an environment step."""
    if end >= self.end():
      return float(self.figures["mean_return"])
    x = np.append(self.steps[self.steps < end], end)
    return summary.mean_over_steps(
      x, logs.interpolate(self.curves, "episode_return", x, STEPS)
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
  unique: dict[tuple[Any, ...], Run] = {}
  problems: list[str] = []
  for path in map(pathlib.Path, paths):
    found = _find_below(path)
    for run in found.runs:
      unique.setdefault(_identity(run), run)
    problems += found.problems
  latest: dict[tuple[Any, ...], float] = {}
  for run in unique.values():
    latest[_origin(run)] = max(latest.get(_origin(run), 0), _updates(run))
  runs = [
    run for run in unique.values()
    if run.finished or _updates(run) == latest[_origin(run)]
  ]
  return Found(runs, list(dict.fromkeys(problems)))


def _find_below(path: pathlib.Path) -> Found:
  """Finds the runs in or below one directory, copies included."""
  if not path.is_dir():
    raise ValueError(
      f"There is no directory {printable(path)}. Give work directories of"
      " programs.train, or directories that contain some."
    )
  found = Found([], [])
  not_begun, begun = [], []
  for directory, files in _walk(path):
    try:
      if {_RUNS, _SETTINGS} <= files:
        found.runs.extend(_read_exported(directory))
      if _CONFIG in files:
        begun.append(directory)
        found.runs.append(_read_work_directory(directory))
      elif "sweep.log" in files:
        not_begun.append(directory)
    # Other programs' files, and damaged ones, may raise anything.
    except Exception as error:
      found.problems.append(printable(
        f"{directory} cannot be read as a run: {type(error).__name__}: {error}"
      ))
  found.problems.extend(
    printable(f"{directory} has not begun, or failed before: see sweep.log.")
    for directory in not_begun
    # Runs side by side have directories below that of their log.
    if not any(run.is_relative_to(directory) for run in begun)
  )
  if not found.runs:
    raise ValueError(" ".join([
      f"{printable(path)} has no run: neither it nor a directory below is a"
      f" work directory of programs.train (with a {_CONFIG}) or data that a"
      f" report kept (with {_RUNS} and {_SETTINGS}).",
      *found.problems[:3],
    ]))
  return found


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


def _updates(run: Run) -> float:
  return run.figures.get("learner_steps", 0)


def _identity(run: Run) -> tuple[Any, ...]:
  """Returns what all copies of one run share, and no other run has."""
  names = ("learner_steps", "final_return", "mean_return")
  return (
    run.task, run.agent, run.seed, json.dumps(run.settings),
    # Exported numbers are rounded.
    *[f"{run.figures.get(name, math.nan):.5g}" for name in names],
  )


def _origin(run: Run) -> tuple[Any, ...]:
  """Returns what the states of one run at different times share."""
  settings = {n: v for n, v in run.settings.items() if n not in NO_SETTINGS}
  return run.name, run.task, run.agent, run.seed, json.dumps(settings)


def _read_work_directory(workdir: pathlib.Path) -> Run:
  described = json.loads(logs.read_text(workdir / _CONFIG))
  settings = {
    **described["config"],
    **{OPTION + n: x for n, x in described["environment_options"].items()},
  }
  if described.get("networks"):
    settings["networks"] = described["networks"]
  figures = summary.summarise_run(workdir)
  curves = _with_all_columns(_with_seconds(logs.read_learner(workdir)))
  if figures:
    figures |= _alpha_order(curves)
    figures["training_seconds"] = float(curves[SECONDS].iloc[-1])
  return Run(
    name=printable(workdir),
    task=described["environment"],
    agent=described["agent"],
    settings=settings,
    seed=described["seed"],
    finished=figures.get("learner_steps", 0) >= _num_updates(settings),
    figures=figures,
    curves=curves,
  )


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


def _with_all_columns(curves: pd.DataFrame) -> pd.DataFrame:
  """Adds the columns that `Run.curves` always has, if there are no rows yet."""
  if curves.empty:
    return pd.DataFrame(columns=[STEPS, SECONDS, "episode_return"], dtype=float)
  if "episode_return" not in curves:
    return curves.assign(episode_return=math.nan)
  return curves


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
  """Returns how many updates a run of these settings makes."""
  names = {field.name for field in dataclasses.fields(STACConfig)}
  known = {name: settings[name] for name in settings if name in names}
  return STACConfig(**known).num_updates


def export(runs: Sequence[Run], directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes what reports need of runs, for `find`; returns the files.

  runs.csv has a row for each run, curves.csv up to 40 rows of each one's log,
  and settings.json the settings that runs.csv refers to by number.
  """
  directory.mkdir(parents=True, exist_ok=True)
  settings: list[Mapping[str, Any]] = []
  rows, curves = [], [pd.DataFrame({"run": []})]
  for number, run in enumerate(runs):
    if run.settings not in settings:
      settings.append(run.settings)
    rows.append({
      "run": number,
      **{name: getattr(run, name) for name in _DESCRIPTION},
      "settings": settings.index(run.settings),
      # As many digits as a plot or a table needs.
      **{
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in run.figures.items()
      },
    })
    if len(run.curves):
      last = len(run.curves) - 1
      kept = np.unique(np.linspace(0, last, _EXPORTED_ROWS).astype(int))
      of_run = run.curves.filter(regex=_EXPORTED).iloc[kept]
      curves.append(of_run.assign(run=number))
  pd.DataFrame(rows).to_csv(directory / _RUNS, index=False)
  pd.concat(curves).to_csv(
    directory / _CURVES, index=False, float_format="%.6g"
  )
  (directory / _SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
  return [directory / name for name in (_RUNS, _CURVES, _SETTINGS)]


def _read_exported(directory: pathlib.Path) -> list[Run]:
  """Reads what `export` wrote."""
  settings = json.loads(logs.read_text(directory / _SETTINGS))
  rows = pd.read_csv(
    io.StringIO(logs.read_text(directory / _RUNS)),
    dtype=dict.fromkeys(("name", "task", "agent"), str),
    keep_default_na=False, na_values=[""],
  )
  curves = pd.read_csv(io.StringIO(logs.read_text(directory / _CURVES)))
  runs = []
  for row in rows.to_dict("records"):
    mine = curves[curves["run"] == row.pop("run")].drop(columns="run")
    mine = _with_all_columns(
      mine.dropna(axis="columns", how="all").reset_index(drop=True)
    )
    described = {name: row.pop(name) for name in _DESCRIPTION}
    described["settings"] = settings[described["settings"]]
    figures = {str(n): value for n, value in row.items() if not pd.isna(value)}
    runs.append(
      Run(figures={**_alpha_order(mine), **figures}, curves=mine, **described)
    )
  return runs
