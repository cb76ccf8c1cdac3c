"""What all figures share: styles of agents and heads, layout, and axes."""

import textwrap
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_stac.evaluation.text import shortened
from acme_stac.presets import AGENTS

# Names of tasks and agents are no formulas.
matplotlib.rcParams["text.parse_math"] = False

# Okabe and Ito's colours, which colour-blind readers can tell apart.
VERMILION, ORANGE, BLUE, GREEN, PURPLE, SKY, BLACK = _COLOURS = (
  "#D55E00", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#000000",
)
# As many as are coprime to the colours: 56 pairs.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
# As in the papers: what is self-tuned is solid, what is fixed dashed.
_FIXED = ("impala", "impala_aux")
_PAPERS = (*_FIXED, "stac", "stacx")
_HATCHES = ("///", "...", "", "\\\\\\", "++", "xx", "oo")
_HEADS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK)
_HEAD_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
# In inches: of a page, and of a phone.
WIDTH, _NARROW = 7.0, 3.7
# Of a line's marks, in points of the line.
_MARK_EVERY = 12
# Horizons that every axis of γ shows, in steps.
_HORIZONS = (10.0, 1000.0)
_LONGEST_HORIZON = 1e6


def _place(agent: str, agents: Sequence[str]) -> int:
  """Returns a number that is an agent's in every figure."""
  presets = list(AGENTS)
  if agent in presets:
    return presets.index(agent)
  taken: dict[int, str] = {}
  number = len(_COLOURS) * len(_MARKERS) - len(presets)
  for name in [*agents, agent]:
    if name in presets or name in taken.values():
      continue
    place = zlib.crc32(name.encode(errors="replace")) % number
    while place in taken and len(taken) < number:
      place = (place + 1) % number
    taken[place] = name
    if name == agent:
      break
  return len(presets) + place


def style(agent: str, agents: Sequence[str] = ()) -> dict[str, Any]:
  """Returns an agent's colour, line style and marker, the same everywhere.

  The four agents of the papers have a colour each, the other presets share
  three, and all other groups of runs are dash-dotted.

  Args:
    agent: name of a preset, or of another group of runs.
    agents: other names in the figure; those that are no presets are kept apart.
  """
  place = _place(agent, agents)
  lone, preset = len(_PAPERS), agent in AGENTS
  if preset and place >= lone:
    colour = lone + (place - lone) % (len(_COLOURS) - lone)
  else:
    colour = place % len(_COLOURS)
  return {
    "color": _COLOURS[colour],
    "marker": _MARKERS[place % len(_MARKERS)],
    "linestyle": "--" if agent in _FIXED else "-" if preset else "-.",
  }


def line(agent: str, agents: Sequence[str] = ()) -> dict[str, Any]:
  """Returns `style` for a line of many points, with marks on few of them."""
  place = _place(agent, agents)
  return {
    **style(agent, agents), "markersize": 4,
    "markevery": (place * 5 % _MARK_EVERY, _MARK_EVERY),
  }


def bars(agent: str, agents: Sequence[str] = ()) -> dict[str, Any]:
  """Returns how an agent's bars are drawn, told apart without colours too."""
  place = _place(agent, agents)
  return {
    "color": style(agent, agents)["color"],
    "hatch": _HATCHES[place % len(_HATCHES)], "edgecolor": "white",
  }


def head(number: int) -> dict[str, Any]:
  """Returns colour and line style of a head of the agent."""
  return {
    "color": _HEADS[number % len(_HEADS)],
    "linestyle": _HEAD_LINES[number % len(_HEAD_LINES)],
  }


def panels(
  number: int, height: float = 2.5, columns: int = 2
) -> tuple[Figure, list[Axes]]:
  """Returns a figure with panels, whose layout makes room for all text.

  Args:
    number: of panels.
    height: of each in inches.
    columns: at most.
  """
  columns = min(columns, number)
  rows = -(-number // columns)
  figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.flat[number:]:
    axes.remove()
  found = list(grid.flat[:number])
  for axes in found:
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
  return figure, found


def title(axes: Axes, text: str):
  """Sets a panel's title, in lines that fit it."""
  axes.set_title(
    textwrap.fill(shortened(text, 90), 42), fontsize="medium"
  )


def steps_axis(axes: Axes, name: str = "environment steps"):
  """Labels an axis of steps or seconds, and writes thousands as k."""
  axes.set_xlabel(name, fontsize="small")
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))


def legend(figure: Figure):
  """Puts one legend for all panels below them, where it covers no line."""
  entries: dict[str, Any] = {}
  for axes in figure.axes:
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(name, handle)
  for old in list(figure.legends):
    old.remove()
  if not entries:
    return
  names = [shortened(name, 48) for name in entries]
  # In points, roughly: a letter of the small font, and a handle.
  longest = 5.0 * max(map(len, names)) + 40.0
  columns = max(1, min(len(names), int(72 * figure.get_figwidth() / longest)))
  figure.set_figheight(
    figure.get_figheight() + 0.2 * -(-len(names) // columns)
  )
  figure.legend(
    entries.values(), names, loc="outside lower center", ncols=columns,
    fontsize="small", frameon=False, handlelength=3,
  )


def narrow(figure: Figure):
  """Puts a figure's panels below each other, as wide as a phone."""
  axes = figure.axes
  specification = axes[0].get_subplotspec()
  assert specification is not None
  old = len(figure.legends[0].get_texts()) if figure.legends else 0
  rows = specification.get_gridspec().nrows
  height = (figure.get_figheight() - 0.2 * bool(old)) / rows
  grid = figure.add_gridspec(len(axes), 1)
  for number, panel in enumerate(axes):
    panel.set_subplotspec(grid[number, 0])
  figure.set_size_inches(_NARROW, height * len(axes))
  for panel in axes:
    if any("\n" in x.get_text() for x in panel.get_xticklabels()):
      panel.tick_params(axis="x", labelsize="x-small")
  if old:
    legend(figure)


def least_span(axes: Axes, which: str, span: float):
  """Widens an axis to a span, so that small differences look small."""
  low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
  missing = span - (high - low)
  if missing > 0:
    ends = (low - missing / 2, high + missing / 2)
    (axes.set_xlim if which == "x" else axes.set_ylim)(ends)


def _drawn(panels_of: Iterable[Axes]) -> list[float]:
  """Returns the heights of all lines in panels."""
  return [
    float(value) for axes in panels_of for line in axes.lines
    for value in np.asarray(line.get_ydata(), float) if np.isfinite(value)
  ]


def horizon(discount: Any) -> Any:
  """Returns how many steps a discount looks ahead, 1 / (1 − γ)."""
  return 1.0 / np.maximum(1.0 - np.asarray(discount), 1 / _LONGEST_HORIZON)


def horizon_axis(axes: Axes):
  """Makes a logarithmic axis of `horizon`, 10 to 1,000 steps and what is drawn.

  A change of γ looks as large as it is for the agent.
  """
  axes.set_yscale("log")
  drawn = _drawn([axes])
  low = min([_HORIZONS[0], *(10 ** np.floor(np.log10(v)) for v in drawn)])
  high = max([_HORIZONS[1], *(10 ** np.ceil(np.log10(v)) for v in drawn)])
  axes.set_ylim(low, high)
  ticks = 10.0 ** np.arange(np.log10(low), np.log10(high) + 0.5)
  axes.set_yticks(ticks, [f"{t:,.0f}\n(γ {1 - 1 / t:.6g})" for t in ticks])
  axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  axes.tick_params(axis="y", labelsize="small")
  axes.set_ylabel("horizon 1/(1−γ), steps", fontsize="small")


def sigma_axes(panels_of: Iterable[Axes]):
  """Gives panels of σ(η) one axis: up to 1, from the tenth below all lines.

  It is never shorter than from 0.9 to 1, so that a change of 0.001 looks small.
  """
  found = list(panels_of)
  drawn = _drawn(found)
  low = min([0.9, *(np.floor(10 * v) / 10 for v in drawn)])
  high = max([1.0, *(np.ceil(10 * v) / 10 for v in drawn)])
  margin = 0.03 * (high - low)
  for axes in found:
    axes.set_ylim(low - margin, high + margin)
    axes.set_ylabel("σ(η), same axis in all", fontsize="small")
    axes.ticklabel_format(axis="y", useOffset=False)
