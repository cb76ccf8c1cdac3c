"""The report's sections of plain results: returns, time, published numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from acme_stac.evaluation import published, scores
from acme_stac.evaluation.figures import groups as figures
from acme_stac.evaluation.figures.groups import short
from acme_stac.evaluation.groups import Variation, label
from acme_stac.evaluation.report.comparison import Comparison
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
  if len(found) > _FEW_WARNINGS:
    page.fold(f"{len(found)} warnings about these runs")
  for text in found:
    page.text(text, "warning")
  if len(found) > _FEW_WARNINGS:
    page.unfold()


def _add_returns(page: Page, comparison: Comparison, tasks: Sequence[str]):
  agents = [
    agent for agent in comparison.agents
    if any(len(comparison.returns(task, agent)) for task in tasks)
  ]
  numbers = sorted({
    len(found) for task in tasks for agent in agents
    if len(found := comparison.returns(task, agent))
  })

  def cell(task: str, agent: str) -> Any:
    returns = comparison.returns(task, agent)
    if not len(returns):
      return "–"
    estimate = mean_interval(returns)
    return estimate if len(numbers) == 1 else (
      estimate, counted(len(returns), "seed")
    )

  names = {t: f"{short(t)}, {comparison.horizon(t):,.0f} steps" for t in tasks}
  # The longer list goes down the page.
  if len(tasks) > len(agents):
    page.table(
      ("task", *agents),
      [(names[t], *[cell(t, agent) for agent in agents]) for t in tasks],
      "answer",
    )
  else:
    page.table(
      ("agent", *names.values()),
      [(agent, *[cell(t, agent) for t in tasks]) for agent in agents],
      "answer",
    )
  over = (
    f"Means over {range_of(numbers, 'seed')} of the" if numbers[-1] > 1
    else "Means of one seed's"
  )
  page.text(
    f"{over} last 100 training episodes (sampled actions, the tasks' own"
    " units), of finished runs with their usual settings."
    f" {_about_intervals(numbers)}"
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
      runs = comparison.groups.runs(task, agent)
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
  grids = comparison.groups.perturbed()
  varied: dict[str, dict[str, list[Run]]] = {}
  for (task, agent, variation), runs in comparison.groups.items():
    if len(variation) > 1 or (variation and variation[0][0] not in grids):
      varied.setdefault(task, {})[label(agent, variation)] = runs
  if varied:
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
    head = (
      "agent", "seeds", f"at {comparison.horizon(task):,.0f} steps",
      "mean over training", f"at {comparison.horizon(task, SECONDS):,.0f} s",
      "evaluation",
    )
    rows: dict[bool, list[Sequence[Any]]] = {False: [], True: []}
    for of_task, agent, variation in comparison.groups:
      if of_task == task:
        rows[bool(variation)] += _returns_row(
          comparison, task, agent, variation
        )
    page.heading(short(task))
    page.table(head, rows[False])
    if rows[True]:
      page.fold(f"{short(task)} with other settings")
      page.table(head, rows[True])
      page.unfold()


def _returns_row(
  comparison: Comparison, task: str, agent: str, variation: Variation
) -> list[Sequence[Any]]:
  """Returns the row of a group, or none if none of its runs counts."""
  table = comparison.table(task, agent, variation)
  if table.empty:
    return []
  evaluated = table["evaluation"].dropna()
  return [(
    label(agent, variation), len(table),
    *[mean_interval(table[name]) for name in (STEPS, "mean_return", SECONDS)],
    "" if evaluated.empty else mean_interval(evaluated),
  )]


def run_time(page: Page, comparison: Comparison):
  """Adds rates and minutes of training."""
  rows = []
  for task in comparison.tasks:
    rates = {
      agent: np.array([run.figures["steps_per_second"] for run in runs])
      for agent in comparison.agents
      if (runs := comparison.groups.finished(task, agent))
    }
    for agent, rate in rates.items():
      minutes = np.median([
        run.figures["training_seconds"] / 60
        for run in comparison.groups.finished(task, agent)
      ])
      ratio = np.median(rates.get(comparison.baseline, math.nan))
      rows.append((
        f"{short(task)}, {agent}", f"{np.median(rate):,.0f}",
        f"{min(rate):,.0f} to {max(rate):,.0f}", f"{minutes:.2f}",
        f"{ratio / np.median(rate):.2f}",
      ))
  if not rows:
    return
  page.section("Run time")
  page.text(
    "Medians over seeds, on whatever machine and beside whatever else they"
    " ran; compare only runs that ran alike. Where the lowest and the highest"
    " rate are far apart, time says more of the machine than of the agent."
  )
  page.table(
    (
      "task, agent", "steps/s", "lowest to highest", "minutes",
      f"time / {comparison.baseline}",
    ),
    rows,
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
        (column.agent, f"{100 * median:.0f}%", column.source)
        for column, median in published.medians(protocol).items()
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
    table = comparison.table(task, agent)
    if table.empty:
      continue
    estimate = mean_interval(table["final_return"])
    frames = min(run.steps[-1] for run in comparison.counted(task, agent))
    score = scores.human_normalised_score(game, estimate.value)
    rows.append((
      f"{agent}, these runs: training, sampled actions,"
      f" {frames / 1e6:.3g}M frames",
      estimate, f"{100 * score:.1f}%", "",
    ))
  for column, value in published.returns(game, protocol).items():
    score = scores.human_normalised_score(game, value)
    rows.append((
      f"{column.agent}, 200M frames", f"{value:.4g}", f"{100 * score:.1f}%",
      column.source,
    ))
  page.heading(f"{game}, protocol “{protocol}”")
  page.table(("agent", "return", "human-normalised", "source"), rows, "text")


def inventory(page: Page, comparison: Comparison):
  """Adds, folded, which seeds are finished, missing and unfinished."""
  page.section("Runs")
  head = (
    "task", "agent", "finished", "finished seeds", "missing", "unfinished seeds"
  )
  rows = []
  for (task, agent, variation), runs in comparison.groups.items():
    done = [run.seed for run in runs if run.finished]
    absent = missing_seeds(comparison, task, variation, runs)
    rows.append((
      short(task), label(agent, variation), f"{len(done)} of {len(runs)}",
      named_seeds(done) if done else "", named_seeds(absent) if absent else "",
      listed(unfinished(runs)),
    ))
  # Columns that are empty for all groups are left out.
  kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
  page.fold(
    f"Seeds of {counted(len(rows), 'group')} of runs: which are finished,"
    " missing and unfinished"
  )
  page.table(
    [head[i] for i in kept], [[row[i] for i in kept] for row in rows], "text"
  )
  page.unfold()
