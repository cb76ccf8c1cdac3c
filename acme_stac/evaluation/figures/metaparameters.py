"""Figures of σ(η) over training, of one run or of several."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_stac.evaluation import logs
from acme_stac.evaluation.figures import styles

_STEPS = "environment_steps"
_POINTS = 50
# Range of every axis of horizons, in steps, unless the data leave it.
_HORIZONS = (10.0, 1000.0)
_LONGEST_HORIZON = 1e6


def metaparameters(
  tables: Sequence[pd.DataFrame], title: str
) -> Figure | None:
  """Draws σ(η) of every head, one panel per metaparameter (Figs. 5a, 9-19).

  For weights in the range "double", draws 2σ(η).

  Args:
    tables: logs of runs, of which the means and ranges are drawn.
    title: title of the figure.

  Returns:
    The figure, or None if nothing is self-tuned.
  """
  found = logs.sigma_columns(tables)
  if not found:
    return None
  figure, grid = styles.panels(len(found), height=2.2)
  for axes, (name, heads) in zip(grid, found.items(), strict=True):
    styles.title(axes, logs.SYMBOLS[name])
    for head, column in heads.items():
      _draw(axes, tables, column, name, f"head {head}", head)
    if name == "discount":
      horizon_axis(axes)
  _finish(figure, title, [
    axes for axes, name in zip(grid, found, strict=True) if name != "discount"
  ])
  return figure


def alpha_order(tables: Sequence[pd.DataFrame], title: str) -> Figure | None:
  """Draws α_ρ against α_c of every head (Fig. 5b); None without them."""
  found = logs.sigma_columns(tables)
  names = ("alpha_rho", "alpha_c")
  if not set(names) <= set(found):
    return None
  heads = found["alpha_rho"]
  figure, grid = styles.panels(len(heads), height=2.4, columns=3)
  for axes, head in zip(grid, heads, strict=True):
    styles.title(axes, f"head {head}")
    for number, name in enumerate(names):
      column = found[name][head]
      _draw(axes, tables, column, name, logs.SYMBOLS[name], number)
  _finish(figure, title, grid)
  return figure


def _draw(
  axes: Axes, tables: Sequence[pd.DataFrame], column: str, name: str,
  label: str, number: int,
):
  """Draws the mean over runs, and the range from the lowest to the highest."""
  if len(tables) == 1:
    x = tables[0][_STEPS].to_numpy()
    values = tables[0][column].to_numpy()[None]
  else:
    end = min(table[_STEPS].iloc[-1] for table in tables)
    x = np.linspace(0.0, end, _POINTS)
    values = np.stack([
      logs.interpolate(table, column, x, _STEPS) for table in tables
    ])
  values = as_drawn(name, values)
  styles.band(
    axes, x, values.mean(axis=0), values.min(axis=0), values.max(axis=0),
    label=label, **styles.head(number),
  )


def _finish(figure: Figure, title: str, sigma_panels: Sequence[Axes]):
  """Labels a figure and its axes, of which some share the scale of σ(η)."""
  for axes in figure.axes:
    styles.steps_axis(axes)
  _sigma_axes(sigma_panels)
  figure.suptitle(title, fontsize="medium")
  styles.legend(figure)


def as_drawn(name: str, sigma: Any) -> Any:
  """Returns the horizon 1 / (1 − γ) in steps for a discount, else σ(η)."""
  if name != "discount":
    return sigma
  return 1.0 / np.maximum(1.0 - np.asarray(sigma), 1 / _LONGEST_HORIZON)


def _drawn(grid: Sequence[Axes]) -> np.ndarray:
  """Returns the finite y-values of all lines in panels."""
  values = np.concatenate([
    np.asarray(x.get_ydata(), float) for axes in grid for x in axes.lines
  ])
  return values[np.isfinite(values)]


def horizon_axis(axes: Axes):
  """Makes a logarithmic axis of horizons, 10 to 1,000 steps or all lines.

  This scale shows a change of γ as large as its effect on the agent.
  """
  axes.set_yscale("log")
  drawn = _drawn([axes])
  low = 10 ** np.floor(np.log10(min([_HORIZONS[0], *drawn])))
  high = 10 ** np.ceil(np.log10(max([_HORIZONS[1], *drawn])))
  axes.set_ylim(low, high)
  ticks = 10.0 ** np.arange(np.log10(low), np.log10(high) + 0.5)
  axes.set_yticks(ticks, [f"{t:,.0f}\n(γ {1 - 1 / t:.6g})" for t in ticks])
  axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  axes.tick_params(axis="y", labelsize="small")
  axes.set_ylabel("horizon 1/(1−γ), steps", fontsize="small")


def _sigma_axes(grid: Sequence[Axes]):
  """Gives panels of σ(η) the same y-axis, in tenths around all their lines.

  It spans at least 0.9 to 1, so that a change of 0.001 looks small.
  """
  if not grid:
    return
  drawn = _drawn(grid)
  low = np.floor(10 * min([0.9, *drawn])) / 10
  high = np.ceil(10 * max([1.0, *drawn])) / 10
  margin = 0.03 * (high - low)
  for axes in grid:
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel("same axis in all", fontsize="small")
    axes.ticklabel_format(axis="y", useOffset=False)
