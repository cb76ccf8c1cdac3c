"""The papers' figures of groups of runs, and rliable's."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rliable import plot_utils

from acme_stac.evaluation import logs, statistics
from acme_stac.evaluation.figures import styles
from acme_stac.evaluation.runs import SECONDS, STEPS, Run
from acme_stac.evaluation.statistics import Estimate
from acme_stac.evaluation.text import counted, range_of, shortened

# Self-tuned metaparameters -> the agent, from none to all of them.
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
_LADDER_COLOURS = {"STAC": styles.BLUE, "STACX": styles.GREEN}
# Improvements in %: if some, or their intervals, are beyond ±200, the axis is
# linear up to ±100 alone.
_LINEAR_TO, _LINEAR_WITHIN = 200.0, 100.0
_MOST_TICKS = 7
_THRESHOLDS = np.array([-50, -20, -10, -5, 0, 5, 10, 20, 50, 100])
POINTS = 50
# Least span of an axis of normalised scores.
_LEAST_SPAN = 0.1
_ERRORS: dict[str, Any] = {"ecolor": "black", "elinewidth": 1}
# Font sizes of rliable's plots.
_SIZES = {"labelsize": "medium", "ticklabelsize": "medium"}


def short(task: str) -> str:
  """Returns a task's name without "gymnasium:" or "gymnax:"."""
  return task.removeprefix("gymnasium:").removeprefix("gymnax:")


def curves(runs: Sequence[Run], x: np.ndarray, axis: str = STEPS) -> np.ndarray:
  """Returns the returns of runs at K points of an axis, [runs, K].

  Beyond the end of a run its last value holds in `SECONDS`, and is NaN in
  `STEPS`.
  """
  return np.stack([
    logs.interpolate(run.curves, "episode_return", x, axis, axis == SECONDS)
    for run in runs
  ])


def _draw_means(axes: Axes, x, values: np.ndarray, **drawn: Any):
  """Draws means over runs, with 95% intervals if there are several.

  Args:
    axes: panel to draw in.
    x: [K] points.
    values: [runs, K]; NaN before a run's first episode ends.
    **drawn: label and style of the line.
  """
  whole = np.isfinite(values).all(axis=0)
  x, values = x[whole], values[:, whole]
  if not len(x):
    return
  if len(values) == 1:
    axes.plot(x, values[0], **drawn)
    return
  found = statistics.mean_curves({"": values[:, None, :]})
  styles.band(axes, x, found.values[""], *found.intervals[""], **drawn)
  # Keeps noise of a single episode from filling the panel.
  styles.least_span(axes, "y", 0.02 * max(1.0, abs(found.values[""][-1])))


def learning_curves(
  panels: Mapping[str, Mapping[str, Sequence[Run]]], axis: str = STEPS
) -> Figure:
  """Draws returns over training, one panel per task (Figs. 2a and 3).

  Draws means over finished runs with their intervals; unfinished runs are
  dotted.

  Args:
    panels: task -> name of the group -> its runs.
    axis: `STEPS` or `SECONDS`.
  """
  figure, grid = styles.panels(len(panels))
  names = list(dict.fromkeys(name for of in panels.values() for name in of))
  for axes, (task, groups) in zip(grid, panels.items(), strict=True):
    numbers = []
    for name, runs in groups.items():
      finished = [run for run in runs if run.finished]
      drawn = styles.line(name, names)
      if finished:
        numbers.append(len(finished))
        ends = [run.end(axis) for run in finished]
        end = min(ends) if axis == STEPS else np.median(ends)
        x = np.linspace(0.0, end, POINTS)
        values = curves(finished, x, axis)
        _draw_means(axes, x, values, label=name, **drawn)
      for run in runs:
        if not run.finished:
          axes.plot(
            run.curves[axis], run.curves["episode_return"], linestyle=":", lw=1,
            color=drawn["color"], label=f"{name}, unfinished",
          )
    number = f", {range_of(numbers, 'seed')}" if numbers else ""
    styles.title(axes, short(task) + number)
    styles.steps_axis(
      axes, "seconds of training" if axis == SECONDS else "environment steps"
    )
    styles.returns_axis(axes)
  styles.legend(figure)
  return figure


def aggregate_curves(scores: dict[str, np.ndarray]) -> Figure:
  """Draws the mean score over tasks during training (Figs. 2a and 3).

  Args:
    scores: agent -> normalised scores, [seeds, tasks, K], at K equally spaced
      points of each task's training; NaN before the first return.
  """
  figure, (axes,) = styles.panels(1, height=3.4)
  for agent, values in scores.items():
    whole = np.isfinite(values).all(axis=(0, 1))
    x = 100.0 * np.linspace(0.0, 1.0, values.shape[-1])[whole]
    found = statistics.mean_curves({agent: values[..., whole]})
    plot_utils.plot_sample_efficiency_curve(
      x, *found, ax=axes, colors=_colours(list(scores)),
      xlabel="training, % of the environment steps",
      ylabel="mean normalised score", **_SIZES,
    )
  _restyle(axes, list(scores))
  styles.least_span(axes, "y", _LEAST_SPAN)
  styles.legend(figure)
  return figure


def _restyle(axes: Axes, agents: Sequence[str]):
  """Gives rliable's lines the agents' markers and line styles."""
  for line in axes.lines:
    line.set(**styles.line(str(line.get_label()), agents), linewidth=1.5)


def _colours(agents: Sequence[str]) -> dict[str, str]:
  return {agent: styles.style(agent, agents)["color"] for agent in agents}


def profiles(scores: dict[str, np.ndarray]) -> Figure:
  """Draws performance profiles: the share of runs above each score.

  Args:
    scores: agent -> normalised scores, [seeds, tasks].
  """
  highest = max(float(score.max()) for score in scores.values())
  lowest = min(float(score.min()) for score in scores.values())
  thresholds = np.linspace(min(0.0, lowest), max(highest, 1e-3), POINTS)
  shares, intervals = statistics.performance_profiles(scores, thresholds)
  figure, (axes,) = styles.panels(1, height=3.2)
  plot_utils.plot_performance_profiles(
    shares, thresholds, intervals, ax=axes, colors=_colours(list(scores)),
    xlabel="normalised score τ", ylabel="share of runs above τ", **_SIZES,
  )
  _restyle(axes, list(scores))
  axes.set_ylim(-0.03, 1.03)
  styles.legend(figure)
  return figure


def _interval_rows(axes: Axes, estimates: Mapping[str, Estimate]):
  """Draws a row for each agent: its interval, and a line at the estimate.

  Looks like rliable's plot_interval_estimates, which only draws with pyplot.
  """
  agents = list(estimates)
  colours = _colours(agents)
  for row, agent in enumerate(reversed(agents)):
    value, low, high = estimates[agent]
    axes.barh(
      row, high - low, left=low, color=colours[agent], alpha=0.4, height=0.6
    )
    axes.vlines(value, row - 0.3, row + 0.3, color=colours[agent], lw=2)
  axes.set_yticks(range(len(agents)), agents[::-1], fontsize="small")


def aggregates(estimates: Mapping[str, Mapping[str, Estimate]]) -> Figure:
  """Draws aggregates over tasks with their 95% intervals, one panel each.

  Args:
    estimates: agent -> name of the aggregate -> estimate.
  """
  names = list(next(iter(estimates.values())))
  figure, grid = styles.panels(
    len(names), height=0.9 + 0.24 * len(estimates)
  )
  for axes, name in zip(grid, names, strict=True):
    _interval_rows(axes, {agent: of[name] for agent, of in estimates.items()})
    styles.title(axes, name)
    axes.use_sticky_edges = False
    axes.margins(x=0.1)
    styles.least_span(axes, "x", _LEAST_SPAN)
  return figure


def probabilities(estimates: Mapping[str, Estimate], baseline: str) -> Figure:
  """Draws the probability that an agent's run is better than the baseline's."""
  figure, (axes,) = styles.panels(1, height=0.9 + 0.3 * len(estimates))
  _interval_rows(axes, estimates)
  axes.axvline(0.5, color="black", lw=0.8)
  axes.set_xlim(0.0, 1.0)
  axes.set_xlabel(f"probability of a better run than {baseline}")
  return figure


def _bars(
  axes: Axes, places: Sequence[float], estimates: Sequence[Estimate],
  size: float = 0.8, across: bool = True, **drawn: Any,
):
  """Draws bars of estimates with their intervals, visible on every colour.

  Args:
    axes: panel to draw in.
    places: of the bars, [K].
    estimates: [K].
    size: width of a bar.
    across: whether bars are horizontal.
    **drawn: style of the bars.
  """
  values = [estimate.value for estimate in estimates]
  errors = [(e.value - e.low, e.high - e.value) for e in estimates]
  # 0 where there is no interval.
  lengths = np.nan_to_num(np.array(errors, float)).T.clip(min=0.0)
  if across:
    axes.barh(places, values, size, **drawn)
    lines = axes.errorbar(values, places, xerr=lengths, fmt="none", **_ERRORS)
  else:
    axes.bar(places, values, size, **drawn)
    lines = axes.errorbar(places, values, yerr=lengths, fmt="none", **_ERRORS)
  for line in lines[2]:
    line.set_path_effects([
      patheffects.withStroke(linewidth=3, foreground="white")
    ])


def ablation(
  bars: dict[str, dict[str, Estimate]], what: dict[str, str]
) -> Figure:
  """Draws the effect of tuning more metaparameters (Figs. 2b and 4).

  Args:
    bars: panel -> agent -> its score.
    what: panel -> name of the score.
  """
  figure, grid = styles.panels(len(bars), height=3.2)
  for axes, name in zip(grid, bars, strict=True):
    ticks = []
    position = 0.0
    for family, ladder in LADDER.items():
      for step, agent in ladder.items():
        if agent not in bars[name]:
          continue
        estimate = bars[name][agent]
        _bars(
          axes, [position], [estimate], 0.7, color=_LADDER_COLOURS[family]
        )
        ticks.append((position, f"{family} {step}"))
        position += 1
      position += 0.5
    axes.set_yticks(*zip(*ticks, strict=True), fontsize="small")
    styles.title(axes, name)
    axes.set_xlabel(what[name])
  return figure


def relative_improvement(
  improvements: dict[str, dict[str, Estimate]], baseline: str
) -> Figure:
  """Draws improvements over a baseline by task (Figs. 8, 9 and 11).

  Their values stand to the right of their bars' rows.

  Args:
    improvements: agent -> task -> improvement of the score in %.
    baseline: name of the agent that the others are compared with.
  """
  tasks = max(len(of) for of in improvements.values())
  figure, grid = styles.panels(
    len(improvements), height=1.2 + 0.28 * tasks,
    columns=2 if tasks < 20 else 1,
  )
  for axes, (agent, of) in zip(grid, improvements.items(), strict=True):
    ordered = dict(sorted(of.items(), key=lambda x: x[1].value))
    values = [estimate.value for estimate in ordered.values()]
    _bars(
      axes, range(len(values)), list(ordered.values()),
      color=[styles.VERMILION if x < 0 else styles.BLUE for x in values],
    )
    axes.set_yticks(
      range(len(values)), [shortened(short(task), 28) for task in ordered],
      fontsize="small",
    )
    for row, value in enumerate(values):
      axes.text(
        1.02, row, _signed(value), transform=axes.get_yaxis_transform(),
        va="center", fontsize="small",
      )
    axes.axvline(0.0, color="black", lw=0.8)
    styles.title(axes, f"{agent} over {baseline}")
    axes.set_xlabel("relative improvement, %")
    styles.least_span(axes, "x", 10.0)
  low = min(axes.get_xlim()[0] for axes in grid)
  high = max(axes.get_xlim()[1] for axes in grid)
  for axes in grid:
    axes.set_xlim(low, high)
    axes.tick_params(axis="x", labelsize="small")
    if max(-low, high) > _LINEAR_TO:
      axes.set_xscale("symlog", linthresh=_LINEAR_WITHIN)
      axes.set_xticks(_improvement_ticks(low, high))
      axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    else:
      axes.xaxis.set_major_locator(ticker.MaxNLocator(_MOST_TICKS - 1))
  return figure


def _signed(value: float) -> str:
  """Returns a short text of an improvement in %."""
  return f"{value:+,.0f}" if 10 <= abs(value) < 1e6 else f"{value:+.2g}"


def _improvement_ticks(low: float, high: float) -> np.ndarray:
  """Returns ticks, few enough to read, of an axis that is linear up to ±100."""
  powers = 10.0 ** np.arange(2, 15)
  every = np.sort(np.concatenate([[50.0], powers, 3 * powers]))
  ticks = every
  for positive in (every, powers, powers[::2], powers[::4]):
    ticks = np.concatenate([-positive[::-1], [0.0], positive])
    ticks = ticks[(low <= ticks) & (ticks <= high)]
    if len(ticks) <= _MOST_TICKS:
      break
  return ticks


def improved_tasks(
  improvements: dict[str, dict[str, Estimate]], baseline: str
) -> Figure:
  """Draws how many tasks improve by at least x% (Fig. 5 of the supplement).

  Args:
    improvements: agent -> task -> improvement of the score in %.
    baseline: name of the agent that the others are compared with.
  """
  figure, (axes,) = styles.panels(1, height=3.2)
  agents = list(improvements)
  for number, agent in enumerate(agents):
    values = np.array([e.value for e in improvements[agent].values()])
    counts = (values[None, :] >= _THRESHOLDS[:, None]).sum(axis=1)
    # With few tasks the lines would cover each other.
    offset = 0.12 * (number - (len(agents) - 1) / 2)
    axes.plot(
      np.arange(len(_THRESHOLDS)) + offset, counts,
      label=f"{agent} ({counted(len(values), 'task')})",
      **styles.style(agent, agents),
    )
  axes.set_xticks(range(len(_THRESHOLDS)), [f"{x:g}" for x in _THRESHOLDS])
  axes.yaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.set(xlabel=f"improvement over {baseline} of at least, %", ylabel="tasks")
  axes.set_ylim(bottom=0)
  styles.legend(figure)
  return figure


def robustness(
  found: Mapping[tuple[str, float, str], Estimate],
  setting: str,
  describe: Callable[[float], str],
) -> Figure:
  """Draws scores with a setting perturbed, one row per task (Figs. 4, 6-8).

  Draws "–" in place of a score that is missing.

  Args:
    found: (task, value of the setting, agent) -> score.
    setting: name of the setting.
    describe: returns the label of a value.
  """
  tasks = list(dict.fromkeys(task for task, _, _ in found))
  agents = list(dict.fromkeys(agent for _, _, agent in found))
  figure, grid = styles.panels(len(tasks), height=2.6, columns=1)
  width = 0.8 / len(agents)
  for axes, task in zip(grid, tasks, strict=True):
    values = sorted({value for one, value, _ in found if one == task})
    for number, agent in enumerate(agents):
      offset = (number - (len(agents) - 1) / 2) * width
      places = {
        i + offset: found.get((task, value, agent))
        for i, value in enumerate(values)
      }
      drawn = {i: x for i, x in places.items() if x is not None}
      if drawn:
        _bars(
          axes, list(drawn), list(drawn.values()), width, across=False,
          label=agent, **styles.bars(agent, agents),
        )
      for i in places.keys() - drawn.keys():
        axes.text(
          i, 0.02, "–", transform=axes.get_xaxis_transform(), ha="center",
          color=styles.style(agent, agents)["color"], fontsize="x-large",
          fontweight="bold",
        )
    axes.set_xticks(range(len(values)), [describe(value) for value in values])
    styles.title(axes, short(task))
    axes.set_ylabel("final return")
    axes.set_xlabel(setting)
    axes.axhline(0.0, color="black", lw=0.8)
  styles.legend(figure)
  return figure
