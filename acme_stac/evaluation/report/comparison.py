"""Compares agents: which runs count, where, and on which scale."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from acme_stac.evaluation import scores, statistics
from acme_stac.evaluation.figures.groups import LADDER
from acme_stac.evaluation.groups import Groups, Variation
from acme_stac.evaluation.runs import OPTION, SECONDS, STEPS, Run

_ATARI = "Atari"
_SUITES = {
  "atari": _ATARI,
  "control": "DM control, features",
  "control_pixels": "DM control, pixels",
  "rwrl": "Real-World RL",
}
_OTHER_TASKS = "Small tasks"
# Agents that are only shown as steps of the ladder.
ABLATIONS = {
  agent for ladder in LADDER.values() for agent in ladder.values()
} - {"impala", "impala_aux", "stac", "stacx"}
_RETURNS = ["seed", STEPS, SECONDS, "mean_return", "evaluation", "final_return"]


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
    self.groups = Groups(runs)
    self.tasks, self.agents = self.groups.tasks, self.groups.agents
    self.main_agents = [
      agent for agent in self.agents if agent not in ABLATIONS
    ] or self.agents
    if baseline is None:
      first = next(iter(self.agents), "impala")
      baseline = "impala" if "impala" in self.agents else first
    if baseline not in self.agents:
      raise ValueError(
        f"No run is of the baseline {baseline!r}. Agents of these runs:"
        f" {', '.join(self.agents) or 'none'}."
      )
    self.baseline = baseline
    self._horizons = {
      (task, axis): self._horizon(task, axis)
      for task in self.tasks for axis in (STEPS, SECONDS)
    }
    self._returns = {
      key: self._table(key[0], members)
      for key, members in self.groups.items()
    }
    self._ranges = {
      task: _range([run for run in runs if run.task == task])
      for task in self.tasks if not scores.has_scale(task)
    }

  def horizon(self, task: str, axis: str = STEPS) -> float:
    """Returns where a task's runs are compared, NaN if none is finished."""
    return self._horizons[task, axis]

  def _horizon(self, task: str, axis: str) -> float:
    ends = [
      [run.ends_at(axis)[-1] for run in members] for agent in self.agents
      if (members := self.groups.finished(task, agent))
    ]
    summarise = min if axis == STEPS else np.median
    return float(min(map(summarise, ends), default=math.nan))

  def return_of(self, run: Run, axis: str = STEPS) -> float:
    """Returns a run's return at the horizon, or at its own earlier end."""
    end = min(self.horizon(run.task, axis), run.ends_at(axis)[-1])
    return run.value_at("episode_return", end, axis)

  def counted(
    self, task: str, agent: str, variation: Variation = ()
  ) -> list[Run]:
    """Returns a group's finished runs with a finite return, by seed."""
    return [
      run for run in self.groups.finished(task, agent, variation)
      if math.isfinite(self.return_of(run))
    ]

  def table(
    self, task: str, agent: str, variation: Variation = ()
  ) -> pd.DataFrame:
    """Returns a row for each counted run of a group, by seed.

    Columns: the seed; the return at the horizon in `STEPS` and in `SECONDS`;
    its mean over training up to the former; the last evaluation, and the return
    at the run's own end.
    """
    found = self._returns.get((task, agent, variation))
    return pd.DataFrame(columns=_RETURNS) if found is None else found

  def _table(self, task: str, members: Sequence[Run]) -> pd.DataFrame:
    rows = [
      (
        run.seed, final, self.return_of(run, SECONDS),
        run.mean_return(self.horizon(task)),
        run.figures.get("evaluation", math.nan), run.figures["final_return"],
      )
      for run in members
      if run.finished and math.isfinite(final := self.return_of(run))
    ]
    return pd.DataFrame(rows, columns=_RETURNS)

  def returns(
    self, task: str, agent: str, variation: Variation = ()
  ) -> np.ndarray:
    """Returns the counted runs' returns at the horizon, [seeds]."""
    return self.table(task, agent, variation)[STEPS].to_numpy(float)

  def tasks_with(self, agents: Sequence[str]) -> list[str]:
    """Returns the tasks on which some of the agents have a counted run."""
    return [
      task for task in self.tasks
      if any(len(self.returns(task, agent)) for agent in agents)
    ]

  # Scales.

  def protocol(self, task: str) -> str:
    """Returns the protocol of an Atari task's runs."""
    for agent in self.agents:
      if self.groups.runs(task, agent):
        return self.groups.usual(task, agent, OPTION + "protocol") or "papers"
    return "papers"

  def suite(self, task: str) -> str:
    """Returns the suite that a task is averaged with, as in the papers.

    Games of different protocols are not averaged.
    """
    suite = _SUITES.get(task.partition(":")[0], _OTHER_TASKS)
    if suite == _ATARI:
      return f"{suite}, protocol {self.protocol(task)}"
    return suite

  def normalised(self, task: str, returns: Any) -> Any:
    """Returns normalised scores of returns on a task."""
    if task not in self._ranges:
      return scores.normalised(task, returns)
    low, high = self._ranges[task]
    return (returns - low) / (high - low)

  def describe_scale(self, task: str) -> str:
    """Returns in words what `normalised` does."""
    if task in self._ranges:
      return "from the lowest to the highest return of these runs"
    return scores.describe_scale(task)

  def matrix(
    self, tasks: Sequence[str], agents: Sequence[str]
  ) -> dict[str, np.ndarray]:
    """Returns normalised scores of the agents that have all tasks.

    Returns:
      [seeds, tasks] of each agent, with as many seeds as its task with fewest.
    """
    matrices = {}
    for agent in agents:
      columns = [self.normalised(t, self.returns(t, agent)) for t in tasks]
      number = min(map(len, columns))
      if number:
        matrices[agent] = np.stack([x[:number] for x in columns], axis=1)
    return matrices

  def improvement(
    self, task: str, agent: str, baseline: str
  ) -> statistics.Estimate | None:
    """Estimates an agent's improvement in %, None if either did not run."""
    mine, theirs = self.returns(task, agent), self.returns(task, baseline)
    if not (len(mine) and len(theirs)):
      return None
    return statistics.relative_improvement(
      self.normalised(task, mine), self.normalised(task, theirs)
    )


def _range(runs: Sequence[Run]) -> tuple[float, float]:
  """Returns the lowest and the highest return of runs; 0 and 1 if equal."""
  values = np.concatenate([
    run.curves.get("episode_return", np.zeros(0)) for run in runs
  ])
  finite = values[np.isfinite(values)]
  if not len(finite) or finite.max() == finite.min():
    return 0.0, 1.0
  return finite.min(), finite.max()
