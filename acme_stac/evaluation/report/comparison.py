"""Groups runs, and compares agents: which runs count, where, on which scale."""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from acme_stac.evaluation import scores, statistics
from acme_stac.evaluation.figures.groups import LADDER, short
from acme_stac.evaluation.runs import (
  NO_SETTINGS,
  OPTION,
  SECONDS,
  STEPS,
  Run,
)
from acme_stac.presets import AGENTS

# Names and values of the settings in which runs differ from the usual ones.
Variation: TypeAlias = tuple[tuple[str, Any], ...]

_ATARI = "Atari"
_SUITES = {
  "atari": _ATARI,
  "control": "DM control, features",
  "control_pixels": "DM control, pixels",
  "playground": "MuJoCo Playground",
  "rwrl": "Real-World RL",
}
_MINATAR, _OTHER_TASKS = "MinAtar", "Small tasks"
# Agents that are only shown as steps of the ladder.
ABLATIONS = {
  agent for ladder in LADDER.values() for agent in ladder.values()
} - {"impala", "impala_aux", "stac", "stacx"}
_COLUMNS = ["seed", STEPS, SECONDS, "mean_return", "evaluation", "final_return"]


@dataclasses.dataclass(eq=False)
class Group:
  """Runs of one agent on one task with the same settings.

  Attributes:
    task: name of the task.
    agent: name of the agent.
    variation: settings that are not the usual ones, see `group_runs`.
    usual: usual settings of the agent on the task.
    runs: by seed, unfinished ones included.
    counted: finished runs with a finite return at the horizon, by seed.
    table: a row for each counted run: the seed; the return at the horizon in
      `STEPS` and in `SECONDS`; its mean over training up to the former; the
      last evaluation, and the return at the run's own end.
  """

  task: str
  agent: str
  variation: Variation = ()
  usual: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  runs: list[Run] = dataclasses.field(default_factory=list)
  counted: list[Run] = dataclasses.field(default_factory=list)
  table: pd.DataFrame = dataclasses.field(
    default_factory=lambda: pd.DataFrame(columns=_COLUMNS)
  )

  @property
  def finished(self) -> list[Run]:
    """The finished runs, by seed."""
    return [run for run in self.runs if run.finished]

  @property
  def returns(self) -> np.ndarray:
    """Returns of the counted runs at the horizon, [seeds]."""
    return self.table[STEPS].to_numpy(float)

  @property
  def label(self) -> str:
    """For example "stac, discount=0.9"."""
    return ", ".join([
      self.agent,
      *[f"{name.removeprefix(OPTION)}={x}" for name, x in self.variation],
    ])

  @property
  def title(self) -> str:
    """For example "catch, stac, discount=0.9"."""
    return f"{short(self.task)}, {self.label}"


def group_runs(runs: Sequence[Run]) -> list[Group]:
  """Groups runs by task, agent and variation.

  The usual value of a setting is the most frequent one among the runs of an
  agent on a task; of equally frequent ones, the one most frequent among all
  runs of the task, and then that of the run with the shortest path, as a
  variation is a directory more (game/field=value/agent/seed). For an
  environment's options it is always the one most frequent among all runs, as
  runs of another environment are not compared. If no run has all the usual
  values, those of the run with most of them are the usual ones. The variation
  of a group is where its settings differ from the usual ones.

  Returns:
    Groups by task, in the order of the runs; by agent, in that of `AGENTS`; and
    by variation, beginning with none.
  """
  groups: dict[tuple[str, str, Variation], Group] = {}
  tasks = list(dict.fromkeys(run.task for run in runs))
  for task in tasks:
    of_task = [run for run in runs if run.task == task]
    of_task.sort(key=lambda run: len(pathlib.PurePath(run.name).parts))
    for agent in dict.fromkeys(run.agent for run in of_task):
      mine = [run for run in of_task if run.agent == agent]
      usual = _usual_settings(mine, of_task)
      for run in mine:
        variation = tuple(
          (name, _setting(run, name)) for name, value in sorted(usual.items())
          if name not in NO_SETTINGS and _setting(run, name) != value
        )
        groups.setdefault(
          (task, agent, variation), Group(task, agent, variation, usual)
        ).runs.append(run)
  presets = list(AGENTS)

  def order(group: Group) -> tuple[Any, ...]:
    known = group.agent in presets
    place = presets.index(group.agent) if known else len(presets)
    variation = group.variation
    return tasks.index(group.task), place, len(variation), str(variation)

  for group in groups.values():
    group.runs.sort(key=lambda run: run.seed)
  return sorted(groups.values(), key=order)


def _usual_settings(
  mine: Sequence[Run], of_task: Sequence[Run]
) -> dict[str, Any]:
  """Returns the usual settings of an agent's runs on a task."""
  usual = {}
  for name in dict.fromkeys(name for run in of_task for name in run.settings):
    of_all = collections.Counter(_setting(run, name) for run in of_task)
    of_mine = collections.Counter(_setting(run, name) for run in mine)
    counts = of_all if name.startswith(OPTION) else of_mine
    usual[name] = max(counts, key=lambda x: (counts[x], of_all[x]))
  nearest = max(
    mine, key=lambda run: sum(_setting(run, n) == x for n, x in usual.items())
  )
  return {
    name: value if name in NO_SETTINGS or name.startswith(OPTION)
    else _setting(nearest, name)
    for name, value in usual.items()
  }


def _setting(run: Run, name: str) -> Any:
  """Returns a setting, with lists and dictionaries at any depth as tuples."""

  def hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
      return tuple((key, hashable(one)) for key, one in value.items())
    return tuple(map(hashable, value)) if isinstance(value, list) else value

  return hashable(run.settings.get(name))


class Comparison:
  """Returns of groups of runs, comparable between agents.

  All agents are compared at the same horizon: in steps, where the first of the
  finished runs with usual settings ends; in seconds, at the median end of the
  agent that needs least time.

  Attributes:
    runs: all of them.
    groups: the runs by task, agent and variation.
    agents: agents with runs of usual settings.
    main_agents: those that are not only steps of the ladder, or else all.
    tasks: in the order of their runs.
    baseline: agent that others are compared with.
    scales: task -> scale of its returns.
  """

  def __init__(self, runs: Sequence[Run], baseline: str | None = None):
    """Compares the runs.

    Args:
      runs: to compare.
      baseline: name of an agent; None takes impala or, if no run is of that,
        the first agent.

    Raises:
      ValueError: if no run with usual settings is of the baseline.
    """
    self.runs = runs
    self.groups = group_runs(runs)
    usual = [group for group in self.groups if not group.variation]
    self._usual = {(group.task, group.agent): group for group in usual}
    self.tasks = list(dict.fromkeys(run.task for run in runs))
    self.agents = list(dict.fromkeys(group.agent for group in usual))
    self.main_agents = [
      agent for agent in self.agents if agent not in ABLATIONS
    ] or self.agents
    if baseline is None:
      baseline = "impala" if "impala" in self.agents else self.agents[0]
    if baseline not in self.agents:
      raise ValueError(
        f"No run is of the baseline {baseline!r}. Agents of these runs:"
        f" {', '.join(self.agents)}."
      )
    self.baseline = baseline
    self._horizons = {
      (task, axis): min((
        float(summary([run.end(axis) for run in group.finished]))
        for group in usual if group.task == task and group.finished
      ), default=math.nan)
      for task in self.tasks for axis, summary in (
        (STEPS, min), (SECONDS, np.median)
      )
    }
    for group in self.groups:
      self._count(group)
    self.scales = {task: self._scale(task) for task in self.tasks}

  def group(self, task: str, agent: str) -> Group:
    """Returns an agent's runs of usual settings; an empty group without any."""
    return self._usual.get((task, agent), Group(task, agent))

  def horizon(self, task: str, axis: str = STEPS) -> float:
    """Returns where a task's runs are compared, NaN if none is finished."""
    return self._horizons[task, axis]

  def return_of(self, run: Run, axis: str = STEPS) -> float:
    """Returns a run's return at the horizon, or at its own earlier end."""
    end = min(self.horizon(run.task, axis), run.end(axis))
    return run.return_at(end, axis)

  def _scale(self, task: str) -> scores.Scale:
    """Returns the scale of a task's returns."""
    mean, low, _ = statistics.mean_interval(
      self.group(task, self.baseline).returns
    )
    return (
      scores.scale_of(task)
      or scores.relative_scale(task, self.baseline, mean, low)
      or _range([run for run in self.runs if run.task == task])
    )

  def _count(self, group: Group):
    """Fills in the counted runs of a group, and their returns."""
    group.counted = [
      run for run in group.finished if math.isfinite(self.return_of(run))
    ]
    rows = [
      (
        run.seed, self.return_of(run), self.return_of(run, SECONDS),
        run.mean_return(self.horizon(run.task)),
        run.figures.get("evaluation", math.nan),
        run.figures.get("final_return", math.nan),
      )
      for run in group.counted
    ]
    group.table = pd.DataFrame(rows, columns=_COLUMNS)

  def tasks_with(self, agents: Sequence[str]) -> list[str]:
    """Returns the tasks on which some of the agents have a counted run."""
    return [
      task for task in self.tasks
      if any(self.group(task, agent).counted for agent in agents)
    ]

  def perturbed(self) -> dict[str, list[float]]:
    """Returns the numbers that were varied alone, with all their values."""
    values: dict[str, set[float]] = {}
    for group in self.groups:
      if len(group.variation) == 1:
        ((name, value),) = group.variation
        pair = (value, group.usual[name])
        if all(type(one) in (int, float) for one in pair):
          values.setdefault(name, set()).update(pair)
    return {name: sorted(found) for name, found in sorted(values.items())}

  def protocol(self, task: str) -> str:
    """Returns the protocol of an Atari task's runs."""
    usual = next(of.usual for of in self.groups if of.task == task)
    return usual.get(OPTION + "protocol") or "papers"

  def suite(self, task: str) -> str:
    """Returns the suite that a task is averaged with, as in the papers.

    Games of different protocols are not averaged.
    """
    if scores.is_minatar(task):
      return _MINATAR
    suite = _SUITES.get(task.partition(":")[0], _OTHER_TASKS)
    if suite == _ATARI:
      return f"{suite}, protocol {self.protocol(task)}"
    return suite

  def matrix(
    self, tasks: Sequence[str], agents: Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Returns normalised scores of the agents that have all tasks.

    Returns:
      [seeds, tasks] of each agent, with as many seeds as its task with fewest.
    """
    matrices = {}
    for agent in agents:
      columns = [
        self.scales[task].normalised(self.group(task, agent).returns)
        for task in tasks
      ]
      number = min(map(len, columns))
      if number:
        matrices[agent] = np.stack([x[:number] for x in columns], axis=1)
    return matrices

  def improvement(
    self, task: str, agent: str, baseline: str
  ) -> statistics.Estimate | None:
    """Estimates an agent's improvement in %, None if either did not run."""
    mine, theirs = (self.group(task, x).returns for x in (agent, baseline))
    if not (len(mine) and len(theirs)):
      return None
    scale = self.scales[task]
    return statistics.relative_improvement(
      scale.normalised(mine), scale.normalised(theirs)
    )


def _range(runs: Sequence[Run]) -> scores.Scale:
  """Returns the scale of a task that has none of its own."""
  values = np.concatenate([run.curves["episode_return"] for run in runs])
  finite = values[np.isfinite(values)]
  low, high = 0.0, 1.0
  if len(finite) and finite.max() > finite.min():
    low, high = finite.min(), finite.max()
  return scores.Scale(
    low, high, "from the lowest to the highest return of these runs"
  )
