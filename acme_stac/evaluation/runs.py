"""Finished, unfinished and missing runs, and what was varied among them."""

import collections
import csv
import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from acme_stac.config import STACConfig
from acme_stac.evaluation import plots, summary
from acme_stac.evaluation.text import printable, printable_values
from acme_stac.presets import AGENTS

_RUNS = "runs.csv"
_CURVES = "curves.csv"
_SETTINGS = "settings.json"
_AXES = ("environment_steps", "seconds")
# Columns of a log that are kept beside those of metaparameters.
_KEPT = ("environment_steps", "learner_steps", "seconds", "episode_return")
# What only says how long a run is.
NO_SETTINGS = ("num_environment_steps",)
# Before the names of an environment's options, among the settings.
OPTION = "environment_options."
# Share of a run's rows in which α_ρ ≥ α_c, by head.
ALPHA_ORDER = "alpha_order_share_head"
_POINTS = 40
# What reading files of any content may raise.
_DAMAGED = (
  OSError, ValueError, KeyError, IndexError, TypeError, AttributeError,
  ArithmeticError, RecursionError, csv.Error,
)
# Of a run with rows.
_FIGURES = (
  "learner_steps", "final_return", "mean_return", "steps_per_second",
  "training_seconds",
)

# Names and values of the settings in which runs differ from the usual ones.
Variation: TypeAlias = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Run:
  """One run, from its work directory or from exported data.

  Attributes:
    name: where it was found.
    task: the environment's name.
    agent: the agent preset's name.
    settings: the agent's hyperparameters, and the environment's options, whose
      names begin with `OPTION`.
    seed: of everything.
    finished: whether all its updates were done.
    figures: of `summary.summarise_run`, "training_seconds", and `ALPHA_ORDER`
      of each head.
    curves: columns of the learner's log, "seconds" of training among them.
  """

  name: str
  task: str
  agent: str
  settings: Mapping[str, Any]
  seed: int
  finished: bool
  figures: Mapping[str, Any]
  curves: plots.Columns = dataclasses.field(repr=False)

  @functools.cached_property
  def steps(self) -> np.ndarray:
    """Environment steps of the rows of `curves`."""
    return self.curves.get("environment_steps", np.zeros(0))

  def value_at(self, column: str, at: float, axis: str) -> float:
    """Returns a curve's value at a step or second, NaN where it has none.

    Args:
      column: of `curves`.
      at: where on the axis; beyond the last row the curve ends.
      axis: "environment_steps" or "seconds".
    """
    if column not in self.curves:
      return math.nan
    x, y = self.curves[axis], self.curves[column]
    known = np.isfinite(y)
    if not known.any() or at > x[known][-1] * (1 + 1e-9):
      return math.nan
    return float(np.interp(at, x[known], y[known]))

  def mean_return(self, end: float) -> float:
    """Returns the mean return over training up to an environment step."""
    if end >= self.steps[-1]:
      return float(self.figures["mean_return"])
    x = np.append(self.steps[self.steps < end], end)
    y = [self.value_at("episode_return", step, "environment_steps")
         for step in x]
    return summary.mean_over_steps(x, np.array(y))

  def check(self):
    """Raises ValueError unless it can be compared with others."""
    for name in ("name", "task", "agent"):
      if not isinstance(getattr(self, name), str):
        raise ValueError(f"{name} must be a text, got {getattr(self, name)!r}.")
    if type(self.seed) is not int:
      raise ValueError(f"seed must be a whole number, got {self.seed!r}.")
    if not isinstance(self.settings, Mapping):
      raise ValueError(f"settings must have names, got {self.settings!r}.")
    if not self.curves and not self.finished:
      return
    missing = [
      *(f"column {name}" for name in _AXES if name not in self.curves),
      *(f"figure {name}" for name in _FIGURES if name not in self.figures),
    ]
    if missing:
      raise ValueError(f"the {missing[0]} is missing.")
    for name in _AXES:
      values = self.curves[name]
      if not np.isfinite(values).all() or (np.diff(values) < 0).any():
        raise ValueError(f"{name} must be numbers that never fall.")
    if self.steps[0] < 0:
      raise ValueError("environment_steps must not be negative.")
    for heads in plots.sigmas([self.curves]).values():
      if sorted(heads) != list(range(len(heads))):
        raise ValueError(f"metaparameters of heads {sorted(heads)} alone.")

  def same_as(self) -> tuple[Any, ...]:
    """Returns what two copies of one run have in common, and no others."""
    kept = ("learner_steps", "final_return", "mean_return")
    return (
      self.task, self.agent, self.seed, json.dumps(self.settings),
      *[f"{float(self.figures.get(name, 0.0)):.5g}" for name in kept],
    )


  def state_of(self) -> tuple[Any, ...]:
    """Returns what two states of one run have in common."""
    settings = {n: v for n, v in self.settings.items() if n not in NO_SETTINGS}
    return (
      self.name, self.task, self.agent, self.seed, json.dumps(settings),
    )


def find(paths: Iterable[pathlib.Path]) -> tuple[list[Run], list[str]]:
  """Returns the runs in or below directories, and what could not be read.

  A run that is found twice, as a work directory or in exported data, is one;
  of an unfinished one that was exported and went on, the later state counts.

  Args:
    paths: work directories of programs.train, directories with such below, and
      directories that `export` wrote. Links are followed.

  Returns:
    The runs, and a sentence about every run or file that is damaged, and about
    every run of a sweep that has not begun.

  Raises:
    ValueError: if there is no run in a path.
  """
  runs: dict[tuple[Any, ...], Run] = {}
  problems: dict[str, None] = {}
  for path in map(pathlib.Path, paths):
    found: list[Run] = []
    of_path: list[str] = []
    if not path.is_dir():
      raise ValueError(
        f"There is no directory {printable(path)}. Give work directories of"
        " programs.train, or directories with such below."
      )
    for directory, files in _walk(path):
      try:
        if {_RUNS, _SETTINGS} <= files:
          found += _read_exported(directory)
        if "config.json" in files:
          found.append(_read_work_directory(directory))
        elif "sweep.log" in files:
          of_path.append(
            f"{directory} has not begun, or failed before: see sweep.log."
          )
      except ValueError as error:
        of_path.append(str(error))
    if not found:
      raise ValueError(
        " ".join([
          f"{printable(path)} has no run: neither it nor a directory below is a"
          " work directory of programs.train (with a config.json) or data that"
          f" a report kept (with {_RUNS} and {_SETTINGS}).",
          *map(printable, of_path[:3]),
        ])
      )
    for run in found:
      runs.setdefault(run.same_as(), run)
    problems.update(dict.fromkeys(of_path))
  latest: dict[tuple[Any, ...], float] = {}
  for run in runs.values():
    steps = _learner_steps(run)
    latest[run.state_of()] = max(latest.get(run.state_of(), steps), steps)
  return [
    run for run in runs.values()
    if run.finished or _learner_steps(run) == latest[run.state_of()]
  ], [printable(problem) for problem in problems]


def _learner_steps(run: Run) -> float:
  steps = float(run.figures.get("learner_steps", 0.0))
  return steps if math.isfinite(steps) else 0.0


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
  file = "config.json"
  try:
    described = printable_values(
      json.loads(plots.regular(workdir / "config.json").read_text())
    )
    settings = {
      **described["config"],
      **{
        OPTION + name: value
        for name, value in described["environment_options"].items()
      },
      **({"networks": n} if (n := described.get("networks")) else {}),
    }
    file = "logs"
    figures = summary.summarise_run(workdir)
    log = plots.read_log(workdir / "logs" / "learner.csv", "learner_steps")
    run = Run(
      name=printable(workdir),
      task=described["environment"],
      agent=described["agent"],
      settings=settings,
      seed=described["seed"],
      finished=False,
      figures={**figures, **_alpha_order(log)},
      curves=_with_seconds(log),
    )
    seconds = run.curves["seconds"][-1] if log else math.nan
    run = dataclasses.replace(
      run,
      finished=figures.get("learner_steps", 0) >= _num_updates(settings),
      figures={**run.figures, "training_seconds": float(seconds)},
    )
    file = "content"
    run.check()
  except _DAMAGED as error:
    raise ValueError(
      f"{workdir} is no work directory that can be read; its {file} gave"
      f" {type(error).__name__}: {error}"
    ) from error
  return run


def _alpha_order(log: plots.Columns) -> dict[str, float]:
  """Returns by head the share of rows in which α_ρ ≥ α_c; {} without them."""
  found = plots.sigmas([log])
  if not {"alpha_rho", "alpha_c"} <= set(found):
    return {}
  return {
    f"{ALPHA_ORDER}{head}": float(
      np.mean(log[column] >= log[found["alpha_c"][head]])
    )
    for head, column in found["alpha_rho"].items()
  }


def _num_updates(settings: Mapping[str, Any]) -> int:
  names = {field.name for field in dataclasses.fields(STACConfig)}
  return STACConfig(
    **{name: value for name, value in settings.items() if name in names}
  ).num_updates


def _with_seconds(log: plots.Columns) -> plots.Columns:
  """Returns a log with the seconds of training from its first row to each.

  Compilation comes before the first row. Between two runs of the same
  directory, and while it was killed, no time passes.
  """
  if not log:
    return {}
  steps = np.diff(log["environment_steps"], prepend=0.0)
  rate = log["environment_steps_per_second"]
  # Where there are no steps, the rate may be 0.
  seconds = np.cumsum(
    np.divide(steps, rate, out=np.zeros_like(steps), where=steps != 0)
  )
  return {**log, "seconds": seconds - seconds[0]}


def export(runs: Sequence[Run], directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes what reports need of runs, for `find`; returns the files.

  runs.csv has a row for each run, curves.csv up to 40 rows of each one's log,
  and settings.json the settings that runs.csv names by number.
  """
  directory.mkdir(parents=True, exist_ok=True)
  settings: list[Mapping[str, Any]] = []
  rows, curves = [], []
  for number, run in enumerate(runs):
    if run.settings not in settings:
      settings.append(run.settings)
    rows.append({
      "run": number,
      "name": run.name,
      "task": run.task,
      "agent": run.agent,
      "settings": settings.index(run.settings),
      "seed": run.seed,
      "finished": run.finished,
      **{name: _short(value) for name, value in run.figures.items()},
    })
    kept = np.unique(
      np.linspace(0, len(run.steps) - 1, _POINTS).astype(int)
    ) if len(run.steps) else []
    names = [
      name
      for name in run.curves
      if name in _KEPT or name.startswith("sigma_")
    ]
    for row in kept:
      curves.append(
        {"run": number, **{n: _short(run.curves[n][row]) for n in names}}
      )
  summary.write_csv(directory / _RUNS, rows)
  summary.write_csv(directory / _CURVES, curves)
  plots.regular(directory / _SETTINGS).write_text(
    json.dumps(settings, indent=1) + "\n"
  )
  return [directory / name for name in (_RUNS, _CURVES, _SETTINGS)]


def _short(value: Any) -> Any:
  """Returns a number with as many digits as a plot or a table needs."""
  if isinstance(value, bool) or not isinstance(value, float):
    return value
  return "" if math.isnan(value) else f"{value:.6g}"


def _read_exported(directory: pathlib.Path) -> list[Run]:
  try:
    settings = printable_values(
      json.loads(plots.regular(directory / _SETTINGS).read_text())
    )
    with open(plots.regular(directory / _RUNS), newline="") as file:
      rows = list(csv.DictReader(file))
    curves = plots.read_log(directory / _CURVES)
    number = curves.pop("run", np.zeros(0))
    runs = []
    for row in rows:
      of_run = number == float(row.pop("run"))
      mine = {
        name: values[of_run]
        for name, values in curves.items()
        if np.isfinite(values[of_run]).any()
      }
      run = Run(
        name=printable(row.pop("name")),
        task=printable(row.pop("task")),
        agent=printable(row.pop("agent")),
        settings=settings[int(row.pop("settings"))],
        seed=int(row.pop("seed")),
        finished=row.pop("finished") == "True",
        figures={
          **_alpha_order(mine),
          **{
            name: plots.number(text)
            for name, text in row.items()
            if text or not name.startswith(ALPHA_ORDER)
          },
        },
        curves=mine,
      )
      run.check()
      runs.append(run)
    return runs
  except _DAMAGED as error:
    raise ValueError(
      f"{directory} is not what a report keeps, or damaged:"
      f" {type(error).__name__}: {error}"
    ) from error


class Groups:
  """Runs by task, agent and variation, with what was the usual setting.

  Tasks are in the order of their runs, agents in that of `acme_stac.AGENTS`.

  A setting's usual value is the one that most runs of an agent on a task have;
  where several are as frequent, the one that most runs of the task have. Of an
  environment's options it is always the latter: runs of another environment are
  not compared. If no run has all usual values, those of the run that has most
  of them are the usual ones. A group's variation is where its settings differ
  from that.

  Attributes:
    seeds: every seed that some run of a task has, by task.
  """

  def __init__(self, runs: Sequence[Run]):
    """Takes the runs."""
    by_task = _grouped(runs, lambda run: run.task)
    self.seeds = {
      task: sorted({run.seed for run in members})
      for task, members in by_task.items()
    }
    self._usual: dict[tuple[str, str], dict[str, Any]] = {}
    self._groups: dict[tuple[str, str, Variation], list[Run]] = {}
    for task, members in by_task.items():
      names = list(dict.fromkeys(n for run in members for n in run.settings))
      of_task = _frequencies(members, names)
      for agent, mine in _grouped(members, lambda run: run.agent).items():
        counts = _frequencies(mine, names)
        usual = {
          name: _most_frequent(
            of_task[name] if name.startswith(OPTION) else counter,
            of_task[name],
          )
          for name, counter in counts.items()
        }
        nearest = max(mine, key=lambda run: _in_common(run, usual))
        usual.update({
          name: _text(nearest, name)
          for name in usual
          if name not in NO_SETTINGS and not name.startswith(OPTION)
        })
        self._usual[task, agent] = {
          name: json.loads(text) for name, text in usual.items()
        }
        for run in mine:
          variation = tuple(
            (name, run.settings.get(name))
            for name, text in sorted(usual.items())
            if name not in NO_SETTINGS and _text(run, name) != text
          )
          self._groups.setdefault(
            (task, agent, _hashable(variation)), []
          ).append(run)
    tasks, presets = list(by_task), list(AGENTS)
    self._groups = dict(sorted(
      self._groups.items(),
      key=lambda item: (
        tasks.index(item[0][0]),
        presets.index(item[0][1]) if item[0][1] in presets else len(presets),
        len(item[0][2]), str(item[0][2]),
      ),
    ))

  @property
  def tasks(self) -> list[str]:
    """Tasks in the order of their runs."""
    return list(self.seeds)

  @property
  def agents(self) -> list[str]:
    """Agents that have runs without variation on some task."""
    return list(dict.fromkeys(
      agent for _, agent, variation in self._groups if not variation
    ))

  def runs(
    self, task: str, agent: str, variation: Variation = ()
  ) -> list[Run]:
    """Returns the runs of a group by seed, unfinished ones included."""
    found = self._groups.get((task, agent, _hashable(variation)), [])
    return sorted(found, key=lambda run: run.seed)

  def finished(
    self, task: str, agent: str, variation: Variation = ()
  ) -> list[Run]:
    """Returns the finished runs of a group by seed."""
    return [run for run in self.runs(task, agent, variation) if run.finished]

  def items(self) -> Iterable[tuple[tuple[str, str, Variation], list[Run]]]:
    """Yields ((task, agent, variation), runs)."""
    return self._groups.items()

  def usual(self, task: str, agent: str, name: str) -> Any:
    """Returns the usual value of a setting."""
    return self._usual.get((task, agent), {}).get(name)

  def perturbed(self) -> dict[str, list[Any]]:
    """Returns numbers that were varied alone, with all their values."""
    values: dict[str, set] = {}
    for (task, agent, variation), _ in self._groups.items():
      if len(variation) == 1:
        ((name, value),) = variation
        pair = (value, self.usual(task, agent, name))
        if all(
          isinstance(one, int | float) and not isinstance(one, bool)
          for one in pair
        ):
          values.setdefault(name, set()).update(pair)
    return {name: sorted(found) for name, found in sorted(values.items())}


def _grouped(runs, key) -> dict[str, list[Run]]:
  groups: dict[str, list[Run]] = {}
  for run in runs:
    groups.setdefault(key(run), []).append(run)
  return groups


def _text(run: Run, name: str) -> str:
  return json.dumps(run.settings.get(name))


def _frequencies(
  runs: Sequence[Run], names: Iterable[str]
) -> dict[str, collections.Counter[str]]:
  return {
    name: collections.Counter(_text(run, name) for run in runs)
    for name in names
  }


def _most_frequent(
  counter: collections.Counter[str], others: collections.Counter[str]
) -> str:
  """Returns the most frequent value; of equals the one others have most."""
  return max(counter, key=lambda value: (counter[value], others[value]))


def _in_common(run: Run, usual: Mapping[str, str]) -> int:
  return sum(_text(run, name) == text for name, text in usual.items())


def _hashable(value: Any) -> Any:
  """Returns lists and dictionaries, at any depth, as tuples."""
  if isinstance(value, Mapping):
    return tuple((name, _hashable(one)) for name, one in value.items())
  if isinstance(value, list | tuple):
    return tuple(map(_hashable, value))
  return value


def label(agent: str, variation: Variation = ()) -> str:
  """Returns how a group is called, for example "stac, discount=0.9"."""
  return ", ".join([
    agent,
    *[f"{name.removeprefix(OPTION)}={value}" for name, value in variation],
  ])
