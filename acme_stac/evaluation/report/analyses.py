"""The report's analyses: scores over tasks, improvement, what is self-tuned."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from acme_stac.evaluation import logs, statistics
from acme_stac.evaluation.figures import groups as figures
from acme_stac.evaluation.figures.groups import LADDER, short
from acme_stac.evaluation.groups import label
from acme_stac.evaluation.report.comparison import ABLATIONS, Comparison
from acme_stac.evaluation.report.page import Page, slug
from acme_stac.evaluation.runs import ALPHA_ORDER, Run
from acme_stac.evaluation.statistics import Estimate, mean_interval
from acme_stac.evaluation.text import counted, listed


def write(page: Page, comparison: Comparison):
  """Adds the analyses for which there are runs."""
  for suite in dict.fromkeys(map(comparison.suite, comparison.tasks)):
    _normalised_scores(page, comparison, suite)
  _improvement(page, comparison)
  _ladder(page, comparison)
  for setting, values in comparison.groups.perturbed().items():
    _robustness(page, comparison, setting, values)
  _metaparameters(page, comparison)


def _normalised_scores(page: Page, comparison: Comparison, suite: str):
  """Adds aggregates over the tasks of a suite, and rliable's figures."""
  tasks = [
    task for task in comparison.tasks
    if comparison.suite(task) == suite
    and math.isfinite(comparison.horizon(task))
  ]
  agents = [a for a in comparison.agents if a not in ABLATIONS]
  matrices = comparison.matrix(tasks, agents) if tasks else {}
  several = {a: matrix for a, matrix in matrices.items() if len(matrix) > 1}
  if not several:
    return
  together = len(tasks) > 1
  page.section(
    f"Normalised scores: {suite}"
    + (f", {len(tasks)} tasks together" if together else "")
  )
  page.text("Normalised scores: " + "; ".join(
    f"{short(task)}: {comparison.describe_scale(task)}" for task in tasks
  ) + ".")
  _say_left_out(page, comparison, tasks, agents, matrices)
  aggregates = statistics.aggregate(several)
  page.table(
    ("agent", "seeds × tasks", *statistics.AGGREGATES),
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
    }, "mean normalised score"),
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
    most = max(len(comparison.returns(task, agent)) for task in tasks)
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
    comparison.normalised(task, figures.curves(
      comparison.counted(task, agent)[:seeds], "episode_return",
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
    " intervals; where some are beyond ±50%, logarithmic beyond ±10%.",
  )
  tasks = list(dict.fromkeys(t for of in improvements.values() for t in of))
  page.table(
    ("%", *map(short, tasks)),
    [
      (agent, *[of.get(task, "") for task in tasks])
      for agent, of in improvements.items()
    ],
  )
  page.figure(
    figures.improved_tasks(shown, baseline), "improved_tasks",
    f"Tasks on which the mean score improves on {baseline} by at least x%.",
  )


def _ladder(page: Page, comparison: Comparison):
  """Adds the effect of self-tuning more and more metaparameters."""
  tasks = comparison.tasks_with(sorted(ABLATIONS & set(comparison.agents)))
  if not tasks:
    return
  ladder = [agent for of in LADDER.values() for agent in of.values()]
  bars = {
    short(task): {
      agent: mean_interval(comparison.returns(task, agent)) for agent in ladder
      if len(comparison.returns(task, agent))
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
  groups = comparison.groups
  cells: dict[str, dict[float, dict[str, Estimate]]] = {}
  for task, agent in dict.fromkeys(
    (task, agent) for task, agent, variation in groups
    if [name for name, _ in variation] == [setting]
    and agent in comparison.agents
  ):
    for value in values:
      usual = groups.usual(task, agent, setting) == value
      returns = comparison.returns(
        task, agent, () if usual else ((setting, value),)
      )
      if len(returns):
        of_task = cells.setdefault(task, dict.fromkeys(values, {}))
        of_task[value] = {**of_task[value], agent: mean_interval(returns)}
  if not cells:
    return
  page.section(f"Robustness: {setting}")
  baseline = comparison.baseline
  for agent in comparison.agents:
    pairs = [
      (cell[agent].value, cell[baseline].value)
      for of_task in cells.values() for cell in of_task.values()
      if agent in cell and baseline in cell
    ]
    if pairs and agent != baseline:
      better = sum(mine > theirs for mine, theirs in pairs)
      page.text(
        f"{agent} has the higher mean than {baseline} in {better} of"
        f" {counted(len(pairs), 'configuration')}"
        f" ({100 * better / len(pairs):.0f}%)."
      )
  clipped = any(
    groups.usual(task, agent, "metaparameter_range") == "clip"
    for task, of_task in cells.items() for cell in of_task.values()
    for agent in cell
  )

  def describe(value: float) -> str:
    # η₀ is a logit, unless the range is clipped.
    if setting == "metaparameter_init" and not clipped:
      return f"{value:g}\n(σ = {special.expit(value):.3f})"
    return f"{value:g}"

  page.figure(
    figures.robustness(
      {
        task: {value: cell for value, cell in of_task.items() if cell}
        for task, of_task in cells.items()
      },
      setting, describe,
    ),
    f"robustness_{setting}",
    f"Final return with {setting} perturbed, means and 95% intervals.",
  )


def _metaparameters(page: Page, comparison: Comparison):
  """Adds σ(η) over training and at its end."""
  rows: dict[bool, list[Sequence[str]]] = {False: [], True: []}
  begun = False
  for task, agent, variation in comparison.groups:
    runs = comparison.groups.finished(task, agent, variation)
    if len(runs) < 1 + bool(variation):
      continue
    name = f"{short(task)}, {label(agent, variation)}"
    changes = _changes(name, runs)
    if changes and not begun:
      page.section("Metaparameters over training")
      begun = True
    rows[bool(variation)] += changes
    if changes and not variation and agent not in ABLATIONS:
      _draw_metaparameters(page, short(task), agent, runs)
  if not begun:
    return
  page.text(
    "σ(η) at the end of training, means and intervals over seeds. Apart: seeds"
    " whose auxiliary heads are all on one side of the acting head."
  )
  head = (
    "task, agent", "σ(η) of", "acting head, start", "acting head, end",
    "auxiliary heads, end", "apart",
  )
  if rows[False]:
    page.table(head, rows[False])
  if rows[True]:
    page.fold("With settings perturbed")
    page.table(head, rows[True])
    page.unfold()


def _draw_metaparameters(page: Page, task: str, agent: str, runs: list[Run]):
  """Adds the figures of one group."""
  title = f"{task}, {agent}, {counted(len(runs), 'seed')}"
  over_seeds = (
    ": means, and from the lowest seed to the highest" if len(runs) > 1 else ""
  )
  page.figure(
    figures.metaparameters(runs, title), f"metaparameters_{task}_{agent}",
    f"σ(η) of every head, {title}{over_seeds}. γ by its horizon 1/(1−γ).",
  )
  page.figure(
    figures.alpha_order(runs, title), f"alpha_order_{task}_{agent}",
    f"α_ρ and α_c, {title}{over_seeds}.",
  )
  shares = {
    name.removeprefix(ALPHA_ORDER): mean_interval(
      [run.figures.get(name, math.nan) for run in runs]
    )
    for name in runs[0].figures if name.startswith(ALPHA_ORDER)
  }
  said = [
    f"head {head} {share.shown('.1%')}" for head, share in shares.items()
    if math.isfinite(share.value)
  ]
  if said:
    page.text(
      f"Rows of the logs with α_ρ ≥ α_c: {listed(said)}. Theorem 1 needs"
      " α_ρ ≤ α_c; the papers state, and count, the other order."
    )


def _changes(name: str, runs: Sequence[Run]) -> list[Sequence[str]]:
  """Returns rows on where the metaparameters of a group's heads end."""
  rows: list[Sequence[str]] = []
  found = logs.sigma_columns([run.curves for run in runs])
  for parameter, heads in found.items():
    ends = np.array([run.curves.iloc[-1][list(heads.values())] for run in runs])
    start = np.mean([run.curves[heads[0]].iloc[0] for run in runs])
    acting, auxiliary = ends[:, 0].astype(float), ends[:, 1:].astype(float)
    at_end = apart = ""
    if auxiliary.shape[1]:
      at_end = mean_interval(auxiliary.mean(axis=1)).shown(".4f")
      signs = np.sign(auxiliary - acting[:, None])
      lower = (signs < 0).all(axis=1).sum()
      higher = (signs > 0).all(axis=1).sum()
      apart = f"{lower} lower, {higher} higher of {len(ends)}"
    rows.append((
      name, logs.SYMBOLS[parameter], f"{start:.4f}",
      mean_interval(acting).shown(".4f"), at_end, apart,
    ))
  return rows
