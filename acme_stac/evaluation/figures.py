"""The papers' figures of groups of runs, as matplotlib figures."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from scipy import special

from acme_stac.evaluation import drawing, plots, statistics
from acme_stac.evaluation.runs import ALPHA_ORDER, Run
from acme_stac.evaluation.text import counted, range_of, shortened

# What is self-tuned, from nothing to everything, by the agent's name.
LADDER = {
  "STAC": {
    "{}": "impala",
    "{γ}": "stac_gamma",
    "{γ, λ}": "stac_gamma_lambda",
    "{γ, λ, g}": "stac_no_alpha",
    "all": "stac",
  },
  "STACX": {
    "{}": "impala_aux",
    "{γ}": "stacx_gamma",
    "{γ, λ}": "stacx_gamma_lambda",
    "{γ, λ, g}": "stacx_no_alpha",
    "all": "stacx",
  },
}
_LADDER_COLOURS = {"STAC": drawing.BLUE, "STACX": drawing.GREEN}
# In per cent: improvements up to here are drawn to scale, and ticks beyond.
_LINEAR_TO = 50.0
_IMPROVEMENTS = [
  sign * 10**power for sign in (-1, 1) for power in range(1, 7)
] + [0]
_POINTS = 50
# Of axes of normalised scores: a tenth of what they measure.
_LEAST_SPAN = 0.1

Scores = dict[str, np.ndarray]


def short(task: str) -> str:
  """Returns a task's name without "gymnasium:"."""
  return task.removeprefix("gymnasium:")


def curve(
  runs: Sequence[Run], column: str, x: np.ndarray, axis: str
) -> np.ndarray:
  """Returns a column of runs at points of an axis, [runs, K].

  Args:
    runs: of one group.
    column: of their curves.
    x: [K] points.
    axis: "environment_steps", beyond whose end there is NaN, or "seconds",
      where a run that has ended keeps its last value.
  """
  values = np.full((len(runs), len(x)), np.nan)
  for row, run in zip(values, runs, strict=True):
    if column in run.curves:
      known = np.isfinite(run.curves[column])
      if known.any():
        row[:] = np.interp(
          x, run.curves[axis][known], run.curves[column][known],
          right=np.nan if axis == "environment_steps" else None,
        )
  return values


def _draw_band(axes, x, values: np.ndarray, name: str, **drawn: Any):
  """Draws means over runs, with 95% intervals where there are several."""
  # Before its first episode ends a run has no return.
  whole = np.isfinite(values).all(axis=0)
  x, values = x[whole], values[:, whole]
  if not len(x):
    return
  if len(values) == 1:
    axes.plot(x, values[0], label=name, **drawn)
    return
  mean, (low, high) = statistics.curve_intervals(values[:, None, :])
  axes.plot(x, mean, label=name, **drawn)
  axes.fill_between(x, low, high, color=drawn["color"], alpha=0.15, lw=0)
  # An episode more or less is no difference, where all have one return.
  drawing.least_span(axes, "y", 0.02 * max(1.0, abs(float(mean[-1]))))


def learning_curves(
  panels: Mapping[str, Mapping[str, Sequence[Run]]],
  axis: str = "environment_steps",
) -> Figure:
  """Draws returns over training, a panel a task (Figs. 2a and 3).

  Means over finished runs with their intervals; unfinished runs are dotted, up
  to where they are.

  Args:
    panels: task -> name of a group -> its runs.
    axis: "environment_steps", or "seconds" of training.
  """
  figure, grid = drawing.panels(len(panels))
  names = list(dict.fromkeys(name for of in panels.values() for name in of))
  for axes, (task, groups) in zip(grid, panels.items(), strict=True):
    numbers = []
    for name, runs in groups.items():
      finished = [run for run in runs if run.finished]
      drawn = drawing.line(name, names)
      if finished:
        numbers.append(len(finished))
        ends = [run.curves[axis][-1] for run in finished]
        end = min(ends) if axis == "environment_steps" else np.median(ends)
        x = np.linspace(0.0, end, _POINTS)
        _draw_band(
          axes, x, curve(finished, "episode_return", x, axis), name, **drawn
        )
      for run in runs:
        if not run.finished and run.curves:
          axes.plot(
            run.curves[axis],
            run.curves.get("episode_return", np.full(len(run.steps), np.nan)),
            color=drawn["color"], linestyle=":", lw=1,
            label=f"{name}, unfinished",
          )
    number = f", {range_of(numbers, 'seed')}" if numbers else ""
    drawing.title(axes, short(task) + number)
    drawing.steps_axis(
      axes, "seconds of training" if axis == "seconds" else "environment steps"
    )
    axes.set_ylabel("return, last 100 episodes", fontsize="small")
  drawing.legend(figure)
  return figure


def aggregate_curves(
  curves: dict[str, np.ndarray], what: str
) -> Figure:
  """Draws the mean score over tasks during training (Figs. 2a and 3).

  Args:
    curves: normalised, [seeds, tasks, K] of each agent at K equal parts of
      each task's training; NaN where there is no return yet.
    what: the score's name.
  """
  figure, (axes,) = drawing.panels(1, height=3.4)
  for agent, values in curves.items():
    drawn = drawing.line(agent, list(curves))
    whole = np.isfinite(values).all(axis=(0, 1))
    x = 100.0 * np.linspace(0.0, 1.0, values.shape[-1])[whole]
    mean, (low, high) = statistics.curve_intervals(values[..., whole])
    axes.plot(x, mean, label=agent, **drawn)
    axes.fill_between(x, low, high, color=drawn["color"], alpha=0.15, lw=0)
  axes.set(xlabel="training, % of the environment steps", ylabel=what)
  drawing.least_span(axes, "y", _LEAST_SPAN)
  drawing.legend(figure)
  return figure


def ablation(
  bars: dict[str, dict[str, statistics.Estimate]], what: dict[str, str]
) -> Figure:
  """Draws what tuning more metaparameters gives (Figs. 2b and 4).

  Args:
    bars: panel -> agent -> its score.
    what: panel -> the score's name.
  """
  figure, grid = drawing.panels(len(bars), height=3.2)
  for axes, name in zip(grid, bars, strict=True):
    ticks = []
    position = 0.0
    for family, ladder in LADDER.items():
      for step, agent in ladder.items():
        if agent not in bars[name]:
          continue
        estimate = bars[name][agent]
        axes.barh(
          position, estimate.value, color=_LADDER_COLOURS[family],
          xerr=_errors([estimate]), error_kw={"lw": 1}, height=0.7,
        )
        ticks.append((position, f"{family} {step}"))
        position += 1
      position += 0.5
    axes.set_yticks(*zip(*ticks, strict=True), fontsize="small")
    drawing.title(axes, name)
    axes.set_xlabel(what[name])
  return figure


def _errors(estimates: Sequence[statistics.Estimate]) -> np.ndarray:
  """Returns matplotlib's error bars, [2, K], 0 where there is no interval."""
  errors = [(e.value - e.low, e.high - e.value) for e in estimates]
  return np.nan_to_num(np.array(errors, float)).T.clip(min=0.0)


def relative_improvement(
  improvements: dict[str, dict[str, statistics.Estimate]], baseline: str
) -> Figure:
  """Draws improvements over a baseline by task (Figs. 8, 9 and 11).

  Args:
    improvements: agent -> task -> improvement of the score in %.
    baseline: its name.
  """
  agents = list(improvements)
  tasks = max(len(of) for of in improvements.values())
  figure, grid = drawing.panels(
    len(agents), height=1.2 + 0.28 * tasks, columns=2 if tasks < 20 else 1
  )
  for axes, agent in zip(grid, agents, strict=True):
    ordered = sorted(improvements[agent].items(), key=lambda x: x[1].value)
    values = [estimate.value for _, estimate in ordered]
    axes.barh(
      range(len(ordered)), values,
      xerr=_errors([estimate for _, estimate in ordered]),
      color=[
        drawing.VERMILION if value < 0 else drawing.BLUE for value in values
      ],
      error_kw={"lw": 1},
    )
    axes.set_yticks(
      range(len(ordered)),
      [shortened(short(task), 28) for task, _ in ordered], fontsize="small",
    )
    axes.axvline(0.0, color="black", lw=0.8)
    drawing.title(axes, f"{agent} over {baseline}")
    axes.set_xlabel("relative improvement, %")
  for axes in grid:
    drawing.least_span(axes, "x", 10.0)
  low = min(axes.get_xlim()[0] for axes in grid)
  high = max(axes.get_xlim()[1] for axes in grid)
  for axes in grid:
    axes.set_xlim(low, high)
    if max(-low, high) > _LINEAR_TO:
      axes.set_xscale("symlog", linthresh=10.0)
      axes.xaxis.set_major_locator(ticker.FixedLocator(_IMPROVEMENTS))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
  return figure


def improved_tasks(
  improvements: dict[str, dict[str, statistics.Estimate]], baseline: str
) -> Figure:
  """Draws how many tasks improve by at least x% (Fig. 5 of the supplement).

  Args:
    improvements: agent -> task -> improvement of the score in %.
    baseline: what they are relative to.
  """
  figure, (axes,) = drawing.panels(1, height=3.2)
  thresholds = np.array([-50, -20, -10, -5, 0, 5, 10, 20, 50, 100])
  agents = list(improvements)
  for number, agent in enumerate(agents):
    values = np.array([e.value for e in improvements[agent].values()])
    counts = (values[None, :] >= thresholds[:, None]).sum(axis=1)
    # Beside each other, as lines of few tasks lie on each other.
    beside = 0.12 * (number - (len(agents) - 1) / 2)
    axes.plot(
      np.arange(len(thresholds)) + beside, counts,
      label=f"{agent} ({counted(len(values), 'task')})",
      **drawing.style(agent, agents),
    )
  axes.set_xticks(range(len(thresholds)), [f"{x:g}" for x in thresholds])
  axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set(
    xlabel=f"improvement over {baseline} of at least, %", ylabel="tasks",
  )
  axes.set_ylim(bottom=0)
  drawing.legend(figure)
  return figure


def robustness(
  cells: dict[str, dict[Any, dict[str, statistics.Estimate]]],
  setting: str,
  describe: Callable[[Any], str],
) -> Figure:
  """Draws scores with a setting perturbed, a row a task (Fig. 4 / 6-8).

  Args:
    cells: task -> value of the setting -> agent -> score.
    setting: its name.
    describe: says a value.
  """
  figure, grid = drawing.panels(len(cells), height=2.6, columns=1)
  agents = list(dict.fromkeys(
    agent for of in cells.values() for value in of.values() for agent in value
  ))
  width = 0.8 / len(agents)
  for axes, (task, values) in zip(grid, cells.items(), strict=True):
    for number, agent in enumerate(agents):
      offset = (number - (len(agents) - 1) / 2) * width
      found = [
        (place, value[agent])
        for place, value in enumerate(values.values())
        if agent in value
      ]
      axes.bar(
        [place + offset for place, _ in found],
        [estimate.value for _, estimate in found],
        width, yerr=_errors([estimate for _, estimate in found]),
        label=agent, error_kw={"lw": 1}, **drawing.bars(agent, agents),
      )
    axes.set_xticks(range(len(values)), [describe(value) for value in values])
    drawing.title(axes, short(task))
    axes.set_ylabel("final return")
    axes.set_xlabel(setting)
    axes.axhline(0.0, color="black", lw=0.8)
  drawing.legend(figure)
  return figure


def metaparameters(runs: Sequence[Run], title: str) -> Figure | None:
  """Draws σ(η) of every head over training (Figs. 5a, 9 and 10-19).

  Means over the runs, and from the lowest run to the highest.

  Args:
    runs: of one group.
    title: of the figure.

  Returns:
    The figure, or None if nothing is self-tuned.
  """
  found = plots.sigmas([run.curves for run in runs])
  if not found:
    return None
  figure, grid = drawing.panels(len(found), height=2.2)
  end = min(run.steps[-1] for run in runs)
  x = np.linspace(0.0, end, _POINTS)
  for axes, (name, heads) in zip(grid, found.items(), strict=True):
    for head, column in heads.items():
      values = curve(runs, column, x, "environment_steps")
      if name == "discount":
        values = drawing.horizon(values)
      _draw_range(axes, x, values, f"head {head}", **drawing.head(head))
    drawing.title(axes, plots.SYMBOLS[name])
    drawing.steps_axis(axes)
  plots.metaparameter_axes(dict(zip(found, grid, strict=True)))
  figure.suptitle(shortened(title, 50), fontsize="medium")
  drawing.legend(figure)
  return figure


def _draw_range(axes, x, values: np.ndarray, name: str, **drawn: Any):
  """Draws means over runs, and from the lowest run to the highest."""
  axes.plot(x, values.mean(axis=0), label=name, **drawn)
  axes.fill_between(
    x, values.min(axis=0), values.max(axis=0), color=drawn["color"],
    alpha=0.15, lw=0,
  )


def alpha_order(runs: Sequence[Run], title: str) -> Figure | None:
  """Draws α_ρ against α_c of every head (Fig. 5b); None without them."""
  found = plots.sigmas([run.curves for run in runs])
  if not {"alpha_rho", "alpha_c"} <= set(found):
    return None
  heads = found["alpha_rho"]
  figure, grid = drawing.panels(len(heads), height=2.4, columns=3)
  end = min(run.steps[-1] for run in runs)
  x = np.linspace(0.0, end, _POINTS)
  for axes, head in zip(grid, heads, strict=True):
    for number, name in enumerate(("alpha_rho", "alpha_c")):
      values = curve(runs, found[name][head], x, "environment_steps")
      _draw_range(axes, x, values, plots.SYMBOLS[name], **drawing.head(number))
    drawing.title(axes, f"head {head}")
    drawing.steps_axis(axes)
  drawing.sigma_axes(grid)
  figure.suptitle(shortened(title, 50), fontsize="medium")
  drawing.legend(figure)
  return figure


def alpha_order_share(runs: Sequence[Run]) -> dict[int, statistics.Estimate]:
  """Returns by head the share of rows in which α_ρ ≥ α_c; {} without them."""
  return {
    int(name.removeprefix(ALPHA_ORDER)): statistics.mean_interval(
      np.array([run.figures[name] for run in runs])
    )
    for name in runs[0].figures
    if name.startswith(ALPHA_ORDER)
    and all(math.isfinite(run.figures.get(name, math.nan)) for run in runs)
  }


def aggregates(
  estimates: dict[str, dict[str, statistics.Estimate]]
) -> Figure:
  """Draws aggregates over tasks with their 95% intervals, a panel each."""
  agents = list(estimates)
  names = list(statistics.AGGREGATES)
  figure, grid = drawing.panels(len(names), height=0.9 + 0.24 * len(agents))
  for axes, name in zip(grid, names, strict=True):
    for row, agent in enumerate(reversed(agents)):
      value, low, high = estimates[agent][name]
      colour = drawing.style(agent, agents)["color"]
      axes.barh(row, high - low, left=low, color=colour, alpha=0.4, height=0.6)
      axes.vlines(value, row - 0.3, row + 0.3, color=colour, lw=2)
    axes.set_yticks(range(len(agents)), agents[::-1], fontsize="small")
    drawing.title(axes, name)
    axes.use_sticky_edges = False
    axes.margins(x=0.1)
    drawing.least_span(axes, "x", _LEAST_SPAN)
  return figure


def profiles(scores: Scores) -> Figure:
  """Draws performance profiles: shares of runs above every score.

  Args:
    scores: normalised, [seeds, tasks] of each agent.
  """
  highest = max(float(score.max()) for score in scores.values())
  lowest = min(float(score.min()) for score in scores.values())
  thresholds = np.linspace(min(0.0, lowest), max(highest, 1e-3), _POINTS)
  shares, intervals = statistics.performance_profile(scores, thresholds)
  figure, (axes,) = drawing.panels(1, height=3.2)
  for agent in scores:
    drawn = drawing.line(agent, list(scores))
    axes.plot(thresholds, shares[agent], label=agent, **drawn)
    axes.fill_between(
      thresholds, *intervals[agent], color=drawn["color"], alpha=0.15, lw=0
    )
  axes.set(xlabel="normalised score τ", ylabel="share of runs above τ")
  axes.set_ylim(-0.03, 1.03)
  drawing.legend(figure)
  return figure


def probabilities(
  estimates: dict[str, statistics.Estimate], baseline: str
) -> Figure:
  """Draws how probably each agent's run is better than the baseline's."""
  figure, (axes,) = drawing.panels(1, height=0.9 + 0.3 * len(estimates))
  agents = list(estimates)
  for row, agent in enumerate(reversed(agents)):
    value, low, high = estimates[agent]
    colour = drawing.style(agent, agents)["color"]
    axes.barh(row, high - low, left=low, color=colour, alpha=0.4, height=0.6)
    axes.vlines(value, row - 0.3, row + 0.3, color=colour, lw=2)
  axes.axvline(0.5, color="black", lw=0.8)
  axes.set_yticks(range(len(agents)), agents[::-1], fontsize="small")
  axes.set_xlim(0.0, 1.0)
  axes.set_xlabel(f"probability of a better run than {baseline}")
  return figure


def describe_setting(name: str, value: Any, ranges: Collection[str]) -> str:
  """Returns a setting's value as it is said: η₀ also by its σ(η₀).

  Args:
    name: of the setting.
    value: of the setting.
    ranges: every `metaparameter_range` among the runs; with "clip" η₀ is the
      value itself.
  """
  if name == "metaparameter_init" and "clip" not in ranges:
    return f"{value:g}\n(σ = {special.expit(value):.3f})"
  return f"{value:g}"


