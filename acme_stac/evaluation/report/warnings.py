"""Warnings about a comparison: missing runs and unequal settings."""

import json
import math
from collections.abc import Iterable, Sequence

from acme_stac.evaluation.figures.groups import short
from acme_stac.evaluation.report.comparison import Comparison, Group
from acme_stac.evaluation.runs import NO_SETTINGS, OPTION, Run
from acme_stac.evaluation.text import listed, named_seeds
from acme_stac.presets import AGENTS


def warnings(comparison: Comparison) -> list[str]:
  """Returns a sentence about everything that limits a comparison."""
  checks = (
    _absent_agents, _incomplete, _repeated, _without_return, _unequal_ends,
    _unequal_settings, _unequal_shares,
  )
  return [text for check in checks for text in check(comparison)]


def missing_seeds(comparison: Comparison, group: Group) -> list[int]:
  """Returns the seeds that a group lacks.

  These are the seeds of other agents whose runs vary the same settings.
  """

  def varied(one: Group) -> tuple[str, set[str]]:
    return one.task, {name for name, _ in one.variation}

  expected = {
    run.seed for other in comparison.groups if varied(other) == varied(group)
    for run in other.runs
  }
  return sorted(expected - {run.seed for run in group.runs})


def unfinished(runs: Sequence[Run]) -> list[str]:
  """Returns the unfinished seeds with their progress."""
  return [f"{run.seed} ({_progress(run)})" for run in runs if not run.finished]


def _progress(run: Run) -> str:
  if run.curves.empty:
    return "no rows yet"
  return f"{100 * run.end() / run.settings['num_environment_steps']:.0f}%"


def _absent_agents(comparison: Comparison) -> Iterable[str]:
  for agent in comparison.agents:
    absent = [
      short(task) for task in comparison.tasks
      if not comparison.group(task, agent).runs
    ]
    if absent:
      yield f"{agent} has no run on {listed(absent)}."


def _incomplete(comparison: Comparison) -> Iterable[str]:
  for group in comparison.groups:
    absent = missing_seeds(comparison, group)
    said = [f"{named_seeds(absent)} missing."] if absent else []
    if ongoing := unfinished(group.runs):
      plural = "s" if len(ongoing) > 1 else ""
      said.append(f"Unfinished: seed{plural} {listed(ongoing)}.")
    if said:
      yield f"{group.title}: {' '.join(said)}"


def _repeated(comparison: Comparison) -> Iterable[str]:
  for group in comparison.groups:
    seeds = [run.seed for run in group.finished]
    if repeated := {seed for seed in seeds if seeds.count(seed) > 1}:
      yield (
        f"{group.title}: several runs have {named_seeds(repeated)}, and count"
        " as independent."
      )


def _without_return(comparison: Comparison) -> Iterable[str]:
  for group in comparison.groups:
    without = [run.seed for run in group.finished if run not in group.counted]
    if without:
      yield (
        f"{group.title}: no finite return at the end of"
        f" {named_seeds(without)}, which the statistics leave out."
      )


def _unequal_ends(comparison: Comparison) -> Iterable[str]:
  for task in comparison.tasks:
    ends = {
      agent: min(run.end() for run in finished) for agent in comparison.agents
      if (finished := comparison.group(task, agent).finished)
    }
    if ends and max(ends.values()) > 1.01 * min(ends.values()):
      first = min(ends, key=lambda agent: ends[agent])
      yield (
        f"{short(task)}: runs end at different steps. All are compared at"
        f" {ends[first]:,.0f}, where the first of {first} ends; leave those out"
        " to compare the others at their own end."
      )
  for group in comparison.groups:
    end = min((run.end() for run in group.finished), default=math.inf)
    horizon = comparison.horizon(group.task)
    if group.variation and end < horizon / 1.01:
      yield (
        f"{group.title}: runs end at {end:,.0f} steps, before {horizon:,.0f},"
        " where the others are compared. Their own end counts."
      )


def _unequal_settings(comparison: Comparison) -> Iterable[str]:
  """Yields settings in which agents differ although their presets do not."""
  for task in comparison.tasks:
    found = [comparison.group(task, agent) for agent in comparison.agents]
    for name in dict.fromkeys(name for group in found for name in group.usual):
      if name in NO_SETTINGS or name.startswith(OPTION):
        continue
      values: dict[str, list[str]] = {}
      for group in found:
        if group.runs and name not in AGENTS.get(group.agent, {}):
          value = json.dumps(group.usual[name])
          values.setdefault(value, []).append(group.agent)
      if len(values) > 1:
        said = "; ".join(f"{v} for {listed(of)}" for v, of in values.items())
        yield (
          f"{short(task)}: agents differ in {name}, although their presets do"
          f" not: {said}."
        )


def _unequal_shares(comparison: Comparison) -> Iterable[str]:
  """Yields tasks whose runs shared their seconds with unequal numbers."""
  for task in comparison.tasks:
    shared = {
      agent: sorted({run.side_by_side for run in group.finished})
      for agent in comparison.agents
      if (group := comparison.group(task, agent)).finished
    }
    if len({number for of in shared.values() for number in of}) > 1:
      said = "; ".join(
        f"{agent} {' or '.join(map(str, of))}" for agent, of in shared.items()
      )
      yield (
        f"{short(task)}: times and rates do not compare, because programs"
        f" trained unequal numbers of runs side by side ({said})."
      )
