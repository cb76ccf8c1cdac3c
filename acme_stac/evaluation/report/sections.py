"""The report's sections of plain results: returns, time, published numbers."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from acme_stac.evaluation import published, scores
from acme_stac.evaluation.figures import groups as figures
from acme_stac.evaluation.figures.groups import short
from acme_stac.evaluation.report.comparison import Comparison, Group
from acme_stac.evaluation.report.page import Page
from acme_stac.evaluation.report.warnings import (
  missing_seeds,
  unfinished,
  warnings,
)
from acme_stac.evaluation.runs import SECONDS, STEPS, Run
from acme_stac.evaluation.statistics import mean_interval
from acme_stac.evaluation.text import counted, listed, named_seeds, range_of

# More warnings than these are folded.
_FEW_WARNINGS = 3
# A panel of more learning curves cannot be read.
_MOST_LINES = 12
# With fewer seeds the page says that bootstrap intervals are too narrow.
_FEW_SEEDS = 10


def answer(page: Page, comparison: Comparison, problems: Sequence[str]):
  """Adds the returns of agents by tasks, and what limits their comparison."""
  page.section("Return at the end of training")
  finished = sum(run.finished for run in comparison.runs)
  page.text(
    f"{counted(len(comparison.runs), 'run')}, {finished:,} finished, on"
    f" {counted(len(comparison.tasks), 'task')}."
  )
  tasks = comparison.tasks_with(comparison.agents)
  if tasks:
    _add_returns(page, comparison, tasks)
  else:
    page.text("No run is finished yet: there is nothing to compare.")
  found = [*problems, *warnings(comparison)]
  with (
    page.fold(f"{len(found)} warnings about these runs")
    if len(found) > _FEW_WARNINGS else contextlib.nullcontext()
  ):
    for text in found:
      page.text(text, "warning")


def _add_returns(page: Page, comparison: Comparison, tasks: Sequence[str]):
  """Adds the table of agents by tasks, and how its numbers were made."""
  table = pd.DataFrame({
    f"{short(task)}, {comparison.horizon(task):,.0f} steps": {
      agent: comparison.group(task, agent).returns
      for agent in comparison.agents
    }
    for task in tasks
  })
  numbers = table.map(len)
  table = table[numbers.any(axis=1)]
  seeds = sorted(set(numbers.to_numpy().flat) - {0})

  def cell(returns: Any) -> Any:
    if not len(returns):
      return "–"
    estimate = mean_interval(returns)
    many = len(seeds) > 1
    return (estimate, counted(len(returns), "seed")) if many else estimate

  # The longer list goes down the page.
  name = "agent"
  if len(tasks) > len(table):
    table, name = table.T, "task"
  page.table(
    (name, *table.columns),
    [(row, *map(cell, table.loc[row])) for row in table.index], "answer",
  )
  over = (
    f"Means over {range_of(seeds, 'seed')} of the" if seeds[-1] > 1
    else "Means of one seed's"
  )
  page.text(
    f"{over} last 100 training episodes (sampled actions, the tasks' own"
    " units), of finished runs with their usual settings."
    f" {_about_intervals(seeds)}"
  )


def _about_intervals(numbers: Sequence[int]) -> str:
  """Returns how intervals over so many seeds are estimated."""
  alone = "One seed has no interval."
  if max(numbers) < 2:
    return alone
  said = (
    "Brackets are 95% intervals of a percentile bootstrap over seeds: they"
    " never leave the range of the seeds"
  )
  if min(n for n in numbers if n > 1) < _FEW_SEEDS:
    said += ", and with as few as here they are rather too narrow"
  return f"{said}. {alone}" if min(numbers) < 2 else f"{said}."


def learning_curves(page: Page, comparison: Comparison):
  """Adds returns over steps and over time, and of varied settings."""
  panels: dict[str, dict[str, list[Run]]] = {}
  for task in comparison.tasks:
    for agent in comparison.main_agents:
      runs = comparison.group(task, agent).runs
      if begun := [run for run in runs if len(run.steps)]:
        panels.setdefault(task, {})[agent] = begun
  if not panels:
    return
  page.section("Learning curves")
  shown = [runs for of_task in panels.values() for runs in of_task.values()]
  drawn = ""
  if any(sum(run.finished for run in runs) > 1 for runs in shown):
    drawn += ", means over seeds with 95% intervals"
  if not all(run.finished for runs in shown for run in runs):
    drawn += "; dotted: unfinished runs"
  for axis, name in ((STEPS, "steps"), (SECONDS, "time")):
    page.figure(
      figures.learning_curves(panels, axis), f"learning_curves_{name}",
      f"Return over {axis.replace('_', ' ')} of training{drawn}.",
    )
  # Numbers that are varied alone have figures of their own.
  grids = comparison.perturbed()
  varied: dict[str, dict[str, list[Run]]] = {}
  for group in comparison.groups:
    names = [name for name, _ in group.variation]
    if len(names) > 1 or (names and names[0] not in grids):
      varied.setdefault(group.task, {})[group.label] = group.runs
  if varied and max(map(len, varied.values())) <= _MOST_LINES:
    page.figure(
      figures.learning_curves(varied), "learning_curves_varied",
      "Return over environment steps of runs with other settings than the"
      " usual ones.",
    )


def returns(page: Page, comparison: Comparison):
  """Adds returns at equal steps and times, also of varied settings."""
  tasks = [t for t in comparison.tasks if math.isfinite(comparison.horizon(t))]
  if not tasks:
    return
  page.section("Returns at equal steps and at equal time")
  page.text(
    "Returns of the last 100 training episodes at equal environment steps;"
    " their mean over all training up to there; and at equal training time"
    " (the median of the fastest agent; compilation is not part of it, and"
    " runs that have ended keep their last value). Evaluation: the last one of"
    " each run, at its end."
  )
  for task in tasks:
    groups = [g for g in comparison.groups if g.task == task and g.counted]
    page.heading(short(task))
    page.tables(
      (
        "agent", "seeds", f"at {comparison.horizon(task):,.0f} steps",
        "mean over training", f"at {comparison.horizon(task, SECONDS):,.0f} s",
        "evaluation",
      ),
      [_returns_row(group) for group in groups if not group.variation],
      [_returns_row(group) for group in groups if group.variation],
      f"{short(task)} with other settings",
    )


def _returns_row(group: Group) -> Sequence[Any]:
  evaluated = group.table["evaluation"].dropna()
  return (
    group.label, len(group.table),
    *[mean_interval(group.table[x]) for x in (STEPS, "mean_return", SECONDS)],
    "" if evaluated.empty else mean_interval(evaluated),
  )


def run_time(page: Page, comparison: Comparison):
  """Adds rates and minutes of training."""
  runs = pd.DataFrame([
    {
      "task": task, "agent": agent, "beside": run.side_by_side,
      "rate": run.figures["steps_per_second"],
      "minutes": run.figures["training_seconds"] / 60,
    }
    for task in comparison.tasks for agent in comparison.agents
    for run in comparison.group(task, agent).finished
  ])
  if runs.empty:
    return
  table = runs.groupby(["task", "agent", "beside"], sort=False).agg(
    rate=("rate", "median"), low=("rate", "min"), high=("rate", "max"),
    minutes=("minutes", "median"),
  )
  rates = table["rate"]

  def name(task: str, agent: str, beside: int) -> str:
    shared = f", {beside} side by side" if beside > 1 else ""
    return f"{short(task)}, {agent}{shared}"

  def relative_time(task: str, rate: float, beside: int) -> str:
    alike = (task, comparison.baseline, beside)
    return f"{rates[alike] / rate:.2f}" if alike in rates else "–"

  page.section("Run time")
  page.text(
    "Medians over seeds, on whatever machine and beside whatever else they"
    " ran; compare only runs that ran alike. Where the lowest and the highest"
    " rate are far apart, time says more of the machine than of the agent. Runs"
    " side by side shared a program and its time."
  )
  page.table(
    (
      "task, agent", "steps/s", "lowest to highest", "minutes",
      f"time / {comparison.baseline}",
    ),
    [
      (
        name(task, agent, beside), f"{row.rate:,.0f}",
        f"{row.low:,.0f} to {row.high:,.0f}", f"{row.minutes:.2f}",
        relative_time(task, row.rate, beside),
      )
      for (task, agent, beside), row in table.iterrows()
    ],
  )


def published_numbers(page: Page, comparison: Comparison):
  """Adds what papers report, if there are runs of Atari."""
  games = [t for t in comparison.tasks if t.startswith("atari:")]
  if not games:
    return
  page.section("Published numbers")
  for task in games:
    game, protocol = scores.game_of(task), comparison.protocol(task)
    if game is not None and protocol in published.PROTOCOLS:
      _add_game(page, comparison, task, game, protocol)
  page.text(
    "What the paper of STACX reports, in its protocols (Atari with the"
    " protocol “papers”)."
  )
  page.table(
    ("agent", "measure", "value", "source"), published.figures(), "text"
  )
  for protocol in published.PROTOCOLS:
    page.heading(
      f"Atari-57, protocol “{protocol}”: median of published scores"
    )
    page.table(
      ("agent", "median, human-normalised", "source"),
      [
        (agent, f"{100 * median:.0f}%", source)
        for (agent, source), median in published.medians(protocol).items()
      ],
      "text",
    )
  page.text(published.REMARK)


def _add_game(
  page: Page, comparison: Comparison, task: str, game: str, protocol: str
):
  """Adds a table of the runs' and the papers' returns in a game."""
  rows: list[Sequence[Any]] = []
  for agent in comparison.agents:
    group = comparison.group(task, agent)
    if not group.counted:
      continue
    estimate = mean_interval(group.table["final_return"])
    frames = min(run.end() for run in group.counted)
    score = scores.human_normalised_score(game, estimate.value)
    rows.append((
      f"{agent}, these runs: training, sampled actions,"
      f" {frames / 1e6:.3g}M frames",
      estimate, f"{100 * score:.1f}%", "",
    ))
  for (agent, source), value in published.returns(game, protocol).items():
    score = scores.human_normalised_score(game, value)
    rows.append(
      (f"{agent}, 200M frames", f"{value:.4g}", f"{100 * score:.1f}%", source)
    )
  page.heading(f"{game}, protocol “{protocol}”")
  page.table(("agent", "return", "human-normalised", "source"), rows, "text")


def inventory(page: Page, comparison: Comparison):
  """Adds, folded, which seeds are finished, missing and unfinished."""
  page.section("Runs")
  rows = []
  for group in comparison.groups:
    done = [run.seed for run in group.finished]
    absent = missing_seeds(comparison, group)
    rows.append((
      short(group.task), group.label, f"{len(done)} of {len(group.runs)}",
      named_seeds(done) if done else "",
      named_seeds(absent) if absent else "", listed(unfinished(group.runs)),
    ))
  with page.fold(
    f"Seeds of {counted(len(rows), 'group')} of runs: which are finished,"
    " missing and unfinished"
  ):
    page.table(
      (
        "task", "agent", "finished", "finished seeds", "missing",
        "unfinished seeds",
      ),
      rows, "text",
    )
