"""The report's analyses: scores over tasks, improvement, metaparameters."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import special

from acme_stac.evaluation import logs, statistics
from acme_stac.evaluation.figures import groups as figures
from acme_stac.evaluation.figures import metaparameters
from acme_stac.evaluation.figures.groups import LADDER, short
from acme_stac.evaluation.report.comparison import (
  ABLATIONS,
  Comparison,
  Group,
)
from acme_stac.evaluation.report.page import Page, slug
from acme_stac.evaluation.runs import ALPHA_ORDER
from acme_stac.evaluation.statistics import Estimate, mean_interval
from acme_stac.evaluation.text import counted, listed, shortened

# Settings of a search that are not folded.
_BEST = 10


def write(page: Page, comparison: Comparison):
  """Adds the analyses for which there are runs."""
  for suite in dict.fromkeys(map(comparison.suite, comparison.tasks)):
    _normalised_scores(page, comparison, suite)
    _search(page, comparison, suite)
  _improvement(page, comparison)
  _ladder(page, comparison)
  for setting, values in comparison.perturbed().items():
    _robustness(page, comparison, setting, values)
  _metaparameters(page, comparison)


def _normalised_scores(page: Page, comparison: Comparison, suite: str):
  """Adds aggregates over the tasks of a suite, and rliable's figures."""
  every = [
    task for task in comparison.tasks
    if comparison.suite(task) == suite
    and math.isfinite(comparison.horizon(task))
  ]
  agents = [a for a in comparison.agents if a not in ABLATIONS]
  tasks = _most_comparable(comparison, every, agents)
  matrices = comparison.matrix(tasks, agents) if tasks else {}
  several = {a: matrix for a, matrix in matrices.items() if len(matrix) > 1}
  if not several:
    return
  together = len(tasks) > 1
  page.section(
    f"Normalised scores: {suite}"
    + (f", {len(tasks)} tasks together" if together else "")
  )
  meanings: dict[str, list[str]] = {}
  for task in tasks:
    meaning = comparison.scales[task].meaning
    meanings.setdefault(meaning, []).append(short(task))
  page.text("Normalised scores: " + "; ".join(
    f"{listed(of)}: {meaning}" for meaning, of in meanings.items()
  ) + ".")
  if without := [short(task) for task in every if task not in tasks]:
    page.text(
      f"Without a finished run of some agent, and left out: {listed(without)}."
    )
  _say_left_out(page, comparison, tasks, agents, matrices)
  aggregates = statistics.aggregate(several)
  for name in _equal_to_mean(several):
    for estimates in aggregates.values():
      del estimates[name]
  page.table(
    ("agent", "seeds × tasks", *next(iter(aggregates.values()))),
    [
      (agent, "×".join(map(str, several[agent].shape)), *estimates.values())
      for agent, estimates in aggregates.items()
    ],
  )
  name = slug(suite.lower())
  page.figure(
    figures.aggregate_curves({
      agent: _score_curves(comparison, tasks, agent, len(matrix))
      for agent, matrix in several.items()
    }),
    f"training_{name}",
    f"Mean normalised score{' over tasks' if together else ''} during training,"
    " 95% intervals.",
  )
  page.figure(
    figures.aggregates(aggregates), f"aggregates_{name}",
    f"Aggregates {'over tasks ' if together else ''}with 95% intervals; a"
    " smaller optimality gap is better.",
  )
  page.figure(
    figures.profiles(several), f"profiles_{name}",
    "Performance profiles: the share of runs above each score.",
  )
  if comparison.baseline in several and len(several) > 1:
    estimates = statistics.probability_of_improvement(
      several, comparison.baseline
    )
    page.figure(
      figures.probabilities(estimates, comparison.baseline),
      f"probability_{name}",
      "Probability that a run is better than one of the baseline: "
      + "; ".join(f"{agent} {found}" for agent, found in estimates.items())
      + ".",
    )


def _equal_to_mean(scores: Mapping[str, np.ndarray]) -> list[str]:
  """Returns the aggregates that equal the mean whatever the scores are."""
  if any(matrix.shape[1] > 1 for matrix in scores.values()):
    return []
  # The interquartile mean drops a quarter of the runs, rounded down, at each
  # end.
  few = all(len(matrix) < 4 for matrix in scores.values())
  return ["median", "interquartile mean"] if few else ["median"]


def _most_comparable(
  comparison: Comparison, tasks: Sequence[str], agents: Sequence[str]
) -> Sequence[str]:
  """Returns all tasks, or those of all agents if that compares more.

  Only agents with a run on every task are compared, and a sweep that is under
  way has a task which only its first agents have finished.
  """
  shared = [
    task for task in tasks
    if all(comparison.group(task, agent).counted for agent in agents)
  ]
  return max(
    tasks, shared,
    key=lambda of: len(of) * len(comparison.matrix(of, agents) if of else ()),
  )


def _search(page: Page, comparison: Comparison, suite: str):
  """Adds the settings of agents of which several were varied, best first."""
  tasks = [t for t in comparison.tasks if comparison.suite(t) == suite]
  for agent in comparison.agents:
    mine = [
      group for group in comparison.groups
      if group.agent == agent and group.task in tasks and group.counted
    ]
    if not any(len(group.variation) > 1 for group in mine):
      continue
    names = sorted({name for group in mine for name, _ in group.variation})
    found: dict[str, dict[str, Group]] = {}
    for group in mine:
      values = {**group.usual, **dict(group.variation)}
      setting = ", ".join(f"{name}={values.get(name)}" for name in names)
      found.setdefault(setting, {})[group.task] = group
    everywhere = {
      setting: of for setting, of in found.items() if len(of) == len(tasks)
    }
    if len(everywhere) > 1:
      _rank(page, comparison, agent, everywhere)


def _rank(
  page: Page,
  comparison: Comparison,
  agent: str,
  settings: Mapping[str, Mapping[str, Group]],
):
  """Adds a table of an agent's settings, which were run on the same tasks."""
  scores = {}
  for setting, of in settings.items():
    seeds = min(len(group.counted) for group in of.values())
    scores[setting] = np.stack([
      comparison.scales[task].normalised(group.returns[:seeds])
      for task, group in of.items()
    ], axis=1)
  means = statistics.mean_curves({x: y[..., None] for x, y in scores.items()})
  best_first = sorted(scores, key=lambda x: -means.values[x][0])
  rows = [
    (
      setting, "×".join(map(str, scores[setting].shape)), means.at(setting),
      *[mean_interval(group.returns) for group in settings[setting].values()],
    )
    for setting in best_first
  ]
  page.section(f"Settings of {agent}, best first")
  page.text(
    "Mean normalised scores, of the settings that were run on all tasks, and"
    " returns. The best of many is partly luck: train it again with other"
    " seeds."
  )
  tasks = next(iter(settings.values()))
  page.tables(
    ("setting", "seeds × tasks", "mean score", *map(short, tasks)),
    rows[:_BEST], rows[_BEST:], "The others",
  )


def _say_left_out(
  page: Page,
  comparison: Comparison,
  tasks: Sequence[str],
  agents: Sequence[str],
  matrices: dict[str, np.ndarray],
):
  """Adds which agents or seeds the aggregates leave out."""
  left_out = [agent for agent in agents if agent not in matrices]
  if left_out:
    page.text(
      "Without a finished run on some task, and left out:"
      f" {listed(left_out)}."
    )
  for agent, matrix in matrices.items():
    most = max(len(comparison.group(task, agent).counted) for task in tasks)
    if len(matrix) == 1:
      page.text(
        f"{agent} has one seed alone{' on some task' if len(tasks) > 1 else ''}"
        ", and is left out."
      )
    elif most > len(matrix):
      page.text(
        f"{agent}: the first {counted(len(matrix), 'seed')} of each task, as"
        " one has no more."
      )


def _score_curves(
  comparison: Comparison, tasks: Sequence[str], agent: str, seeds: int
) -> np.ndarray:
  """Returns normalised scores during training, [seeds, tasks, K]."""
  return np.stack([
    comparison.scales[task].normalised(figures.curves(
      comparison.group(task, agent).counted[:seeds],
      np.linspace(0.0, comparison.horizon(task), figures.POINTS),
    ))
    for task in tasks
  ], axis=1)


def _improvement(page: Page, comparison: Comparison):
  """Adds improvements over the baseline, by task."""
  baseline = comparison.baseline
  improvements: dict[str, dict[str, Estimate]] = {}
  for agent in comparison.agents:
    for task in comparison.tasks if agent != baseline else ():
      improved = comparison.improvement(task, agent, baseline)
      if improved is not None:
        improvements.setdefault(agent, {})[task] = improved
  if not improvements:
    return
  page.section(f"Improvement over {baseline}")
  shown = {
    agent: of for agent, of in improvements.items() if agent not in ABLATIONS
  } or improvements
  page.figure(
    figures.relative_improvement(shown, baseline), "relative_improvement",
    f"Relative improvement of the normalised score over {baseline} with 95%"
    " intervals. Where some reach beyond ±200%, the axis is logarithmic beyond"
    " ±100%.",
  )
  tasks = list(dict.fromkeys(t for of in improvements.values() for t in of))
  page.table(
    ("%", *map(short, tasks)),
    [
      (agent, *[of.get(task, "") for task in tasks])
      for agent, of in improvements.items()
    ],
  )
  if len(tasks) > 1:
    page.figure(
      figures.improved_tasks(shown, baseline), "improved_tasks",
      f"Tasks on which the mean score improves on {baseline} by at least x%.",
    )


def _ladder(page: Page, comparison: Comparison):
  """Adds the ablation ladder: the effect of self-tuning more metaparameters."""
  tasks = comparison.tasks_with(sorted(ABLATIONS & set(comparison.agents)))
  if not tasks:
    return
  ladder = [agent for of in LADDER.values() for agent in of.values()]
  bars = {
    short(task): {
      agent: mean_interval(group.returns) for agent in ladder
      if (group := comparison.group(task, agent)).counted
    }
    for task in tasks
  }
  what = dict.fromkeys(bars, "return at the end")
  if len(tasks) > 1:
    together = f"{len(tasks)} tasks together"
    what[together] = "mean normalised score"
    aggregates = statistics.aggregate(comparison.matrix(tasks, ladder))
    bars[together] = {agent: of["mean"] for agent, of in aggregates.items()}
  page.section("What is self-tuned")
  page.figure(
    figures.ablation(bars, what), "ablation",
    "The ablation ladder: one head (STAC, blue) and three (STACX, green), with"
    " more and more self-tuned, and 95% intervals.",
  )
  page.text("Each step of a ladder over its own first one, in %:")
  rows = []
  for family, of in LADDER.items():
    for step, agent in list(of.items())[1:]:
      cells = [comparison.improvement(t, agent, of["{}"]) or "" for t in tasks]
      if any(cells):
        rows.append((f"{family} {step}", *cells))
  page.table(("", *map(short, tasks)), rows)


def _robustness(
  page: Page, comparison: Comparison, setting: str, values: Sequence[float]
):
  """Adds returns of the agents with a setting perturbed."""
  found: dict[tuple[str, float, str], Estimate] = {}
  clipped = False
  for group in comparison.groups:
    task, agent = group.task, group.agent
    if [name for name, _ in group.variation] != [setting]:
      continue
    if agent not in comparison.agents:
      continue
    for one in (comparison.group(task, agent), group):
      value = dict(one.variation).get(setting, group.usual[setting])
      if one.counted and value in values:
        found[task, value, agent] = mean_interval(one.returns)
        clipped |= group.usual.get("metaparameter_range") == "clip"
  if not found:
    return
  page.section(f"Robustness: {setting}")
  baseline = comparison.baseline
  means = pd.Series({key: found[key].value for key in found}).unstack()
  for agent in comparison.agents:
    if agent == baseline or not {agent, baseline} <= set(means):
      continue
    pairs = means[[agent, baseline]].dropna()
    better = (pairs[agent] > pairs[baseline]).sum()
    if len(pairs):
      page.text(
        f"{agent} has the higher mean than {baseline} in {better} of"
        f" {counted(len(pairs), 'configuration')}"
        f" ({100 * better / len(pairs):.0f}%)."
      )

  def describe(value: float) -> str:
    # η₀ is a logit, unless the range is clipped.
    if setting == "metaparameter_init" and not clipped:
      return f"{value:g}\n(σ = {special.expit(value):.3f})"
    return f"{value:g}"

  page.figure(
    figures.robustness(found, setting, describe), f"robustness_{setting}",
    f"Final return with {setting} perturbed, means and 95% intervals (–: no"
    " finished run).",
  )


def _metaparameters(page: Page, comparison: Comparison):
  """Adds σ(η) over training and at its end."""
  tuned = {
    group: changes for group in comparison.groups
    if len(group.finished) >= 1 + bool(group.variation)
    and (changes := _changes(group))
  }
  if not tuned:
    return
  page.section("Metaparameters over training")
  for group in tuned:
    if not group.variation and group.agent not in ABLATIONS:
      _draw_metaparameters(page, group)
  page.text(
    "Metaparameters at the end of training, as in the logs (σ(η); 2σ(η) of"
    " weights in the range \"double\"), means and intervals over seeds. Apart:"
    " seeds whose auxiliary heads are all on one side of the acting head."
  )
  page.tables(
    (
      "task, agent", "metaparameter", "acting head, start", "acting head, end",
      "auxiliary heads, end", "apart",
    ),
    [row for group in tuned if not group.variation for row in tuned[group]],
    [row for group in tuned if group.variation for row in tuned[group]],
    "With settings perturbed",
  )


def _draw_metaparameters(page: Page, group: Group):
  """Adds the figures of one group."""
  runs = group.finished
  name = f"{short(group.task)}_{group.agent}"
  title = f"{group.title}, {counted(len(runs), 'seed')}"
  over_seeds = (
    ": means, and from the lowest seed to the highest" if len(runs) > 1 else ""
  )
  curves = [run.curves for run in runs]
  page.figure(
    metaparameters.metaparameters(curves, shortened(title, 50)),
    f"metaparameters_{name}",
    f"Every head, {title}{over_seeds}. γ by its horizon 1/(1−γ).",
  )
  page.figure(
    metaparameters.alpha_order(curves, shortened(title, 50)),
    f"alpha_order_{name}",
    f"α_ρ and α_c, {title}{over_seeds}.",
  )
  shares = pd.DataFrame([run.figures for run in runs]).filter(like=ALPHA_ORDER)
  said = [
    f"head {column.removeprefix(ALPHA_ORDER)}"
    f" {mean_interval(shares[column]).shown('.1%')}"
    for column in shares if shares[column].notna().all()
  ]
  if said:
    page.text(
      f"Rows of the logs with α_ρ ≥ α_c: {listed(said)}. Theorem 1 needs"
      " α_ρ ≤ α_c; the papers state, and count, the other order."
    )


def _changes(group: Group) -> list[Sequence[str]]:
  """Returns rows on where the metaparameters of a group's heads end."""
  rows: list[Sequence[str]] = []
  curves = [run.curves for run in group.finished]
  for parameter, heads in logs.sigma_columns(curves).items():
    ends = np.array([table.iloc[-1][list(heads.values())] for table in curves])
    start = np.mean([table[heads[0]].iloc[0] for table in curves])
    acting, auxiliary = ends[:, 0].astype(float), ends[:, 1:].astype(float)
    at_end = apart = ""
    if auxiliary.shape[1]:
      at_end = mean_interval(auxiliary.mean(axis=1)).shown(".4f")
      signs = np.sign(auxiliary - acting[:, None])
      lower = (signs < 0).all(axis=1).sum()
      higher = (signs > 0).all(axis=1).sum()
      apart = f"{lower} lower, {higher} higher of {len(ends)}"
    rows.append((
      group.title, logs.SYMBOLS[parameter], f"{start:.4f}",
      mean_interval(acting).shown(".4f"), at_end, apart,
    ))
  return rows
