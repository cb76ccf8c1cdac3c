"""Warnings about a comparison: missing runs and unequal settings."""

import json
import math
from collections.abc import Iterable, Sequence

from acme_stac.evaluation.figures.groups import short
from acme_stac.evaluation.groups import Variation, label
from acme_stac.evaluation.report.comparison import Comparison
from acme_stac.evaluation.runs import NO_SETTINGS, OPTION, Run
from acme_stac.evaluation.text import listed, named_seeds
from acme_stac.presets import AGENTS


def warnings(comparison: Comparison) -> list[str]:
  """Returns a sentence about everything that limits a comparison."""
  checks = (
    _absent_agents, _incomplete, _repeated, _without_return, _unequal_ends,
    _unequal_settings,
  )
  return [text for check in checks for text in check(comparison)]


def missing_seeds(
  comparison: Comparison, task: str, variation: Variation, runs: Sequence[Run]
) -> list[int]:
  """Returns the seeds that a group lacks.

  These are the seeds of other agents whose runs vary the same settings.
  """
  names = {name for name, _ in variation}
  expected = {
    run.seed
    for (other, _, varied), members in comparison.groups.items()
    if other == task and {name for name, _ in varied} == names
    for run in members
  }
  return sorted(expected - {run.seed for run in runs})


def unfinished(runs: Sequence[Run]) -> list[str]:
  """Returns the unfinished seeds with their progress."""
  return [f"{run.seed} ({_progress(run)})" for run in runs if not run.finished]


def _progress(run: Run) -> str:
  total = run.settings.get("num_environment_steps")
  if not len(run.steps) or not total:
    return "no rows yet"
  return f"{100 * run.steps[-1] / total:.0f}%"


def _absent_agents(comparison: Comparison) -> Iterable[str]:
  for agent in comparison.agents:
    absent = [
      short(task) for task in comparison.tasks
      if not comparison.groups.runs(task, agent)
    ]
    if absent:
      yield f"{agent} has no run on {listed(absent)}."


def _incomplete(comparison: Comparison) -> Iterable[str]:
  for (task, agent, variation), runs in comparison.groups.items():
    absent = missing_seeds(comparison, task, variation, runs)
    said = [f"{named_seeds(absent)} missing."] if absent else []
    if ongoing := unfinished(runs):
      plural = "s" if len(ongoing) > 1 else ""
      said.append(f"Unfinished: seed{plural} {listed(ongoing)}.")
    if said:
      yield f"{short(task)}, {label(agent, variation)}: {' '.join(said)}"


def _repeated(comparison: Comparison) -> Iterable[str]:
  for (task, agent, variation), runs in comparison.groups.items():
    seeds = [run.seed for run in runs if run.finished]
    repeated = {seed for seed in seeds if seeds.count(seed) > 1}
    if repeated:
      yield (
        f"{short(task)}, {label(agent, variation)}: several runs have"
        f" {named_seeds(repeated)}, and count as independent."
      )


def _without_return(comparison: Comparison) -> Iterable[str]:
  for (task, agent, variation), runs in comparison.groups.items():
    without = [
      run.seed for run in runs
      if run.finished and not math.isfinite(comparison.return_of(run))
    ]
    if without:
      yield (
        f"{short(task)}, {label(agent, variation)}: no finite return at the end"
        f" of {named_seeds(without)}, which the statistics leave out."
      )


def _unequal_ends(comparison: Comparison) -> Iterable[str]:
  for task in comparison.tasks:
    ends = {
      agent: min(run.steps[-1] for run in runs) for agent in comparison.agents
      if (runs := comparison.groups.finished(task, agent))
    }
    if ends and max(ends.values()) > 1.01 * min(ends.values()):
      first = min(ends, key=lambda agent: ends[agent])
      yield (
        f"{short(task)}: runs end at different steps. All are compared at"
        f" {ends[first]:,.0f}, where the first of {first} ends; leave those out"
        " to compare the others at their own end."
      )
  for (task, agent, variation), runs in comparison.groups.items():
    end = min((run.steps[-1] for run in runs if run.finished), default=math.inf)
    horizon = comparison.horizon(task)
    if variation and end < horizon / 1.01:
      yield (
        f"{short(task)}, {label(agent, variation)}: runs end at {end:,.0f}"
        f" steps, before {horizon:,.0f}, where the others are compared. Their"
        " own end counts."
      )


def _unequal_settings(comparison: Comparison) -> Iterable[str]:
  """Yields settings in which agents differ although their presets do not."""
  groups = comparison.groups
  for task in comparison.tasks:
    agents = [a for a in comparison.agents if groups.runs(task, a)]
    names = dict.fromkeys(
      name for agent in agents for run in groups.runs(task, agent)
      for name in run.settings
      if name not in NO_SETTINGS and not name.startswith(OPTION)
    )
    for name in names:
      values: dict[str, list[str]] = {}
      for agent in agents:
        if name not in AGENTS.get(agent, {}):
          value = json.dumps(groups.usual(task, agent, name))
          values.setdefault(value, []).append(agent)
      if len(values) > 1:
        said = "; ".join(f"{v} for {listed(of)}" for v, of in values.items())
        yield (
          f"{short(task)}: agents differ in {name}, although their presets do"
          f" not: {said}."
        )
