"""Styles and layout that all figures share."""

import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from acme_stac.evaluation.text import shortened
from acme_stac.presets import AGENTS

# Okabe and Ito's colours, which colour-blind readers can tell apart.
VERMILION, ORANGE, BLUE, GREEN, PURPLE, SKY, BLACK = _COLOURS = (
  "#D55E00", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#000000",
)
# 8 markers and 7 colours, which are coprime, give 56 distinct pairs.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
# As in the papers: self-tuned agents are solid, fixed ones dashed.
_FIXED = ("impala", "impala_aux")
_PAPERS = (*_FIXED, "stac", "stacx")
_HATCHES = ("///", "...", "", "\\\\\\", "++", "xx", "oo")
_HEADS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK)
_HEAD_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
# Width of a figure for a page, and for a phone, in inches.
WIDTH, _NARROW = 7.0, 3.7
# Points of a line from one marker to the next.
_MARK_EVERY = 12
EPISODE_WINDOW = 100
# Longest line of a legend.
_LEGEND_LETTERS = 48


def _place(agent: str, agents: Sequence[str]) -> int:
  """Returns an agent's number: presets first, then the figure's others."""
  others = [name for name in agents if name not in AGENTS]
  numbered = list(dict.fromkeys([*AGENTS, *others, agent]))
  return numbered.index(agent)


def style(agent: str, agents: Sequence[str] = ()) -> dict[str, Any]:
  """Returns an agent's colour, line style and marker.

  A preset looks the same in every figure. The papers' four agents have one
  colour each, the other presets share three, other groups are dash-dotted.

  Args:
    agent: name of a preset, or of another group of runs.
    agents: all names in the figure, in an order that its panels share.
  """
  place = _place(agent, agents)
  alone, preset = len(_PAPERS), agent in AGENTS
  if preset and place >= alone:
    colour = alone + (place - alone) % (len(_COLOURS) - alone)
  else:
    colour = place % len(_COLOURS)
  return {
    "color": _COLOURS[colour],
    "marker": _MARKERS[place % len(_MARKERS)],
    "linestyle": "--" if agent in _FIXED else "-" if preset else "-.",
  }


def line(agent: str, agents: Sequence[str] = ()) -> dict[str, Any]:
  """Returns `style` for a line of many points, of which some have a marker."""
  offset = _place(agent, agents) * 5 % _MARK_EVERY
  return {
    **style(agent, agents), "markersize": 4, "markevery": (offset, _MARK_EVERY),
  }


def bars(agent: str, agents: Sequence[str] = ()) -> dict[str, Any]:
  """Returns the colour and hatching of an agent's bars."""
  return {
    "color": style(agent, agents)["color"], "edgecolor": "white",
    "hatch": _HATCHES[_place(agent, agents) % len(_HATCHES)],
  }


def head(number: int) -> dict[str, Any]:
  """Returns the colour and line style of one of the agent's heads."""
  return {
    "color": _HEADS[number % len(_HEADS)],
    "linestyle": _HEAD_LINES[number % len(_HEAD_LINES)],
  }


def panels(
  number: int, height: float = 2.5, columns: int = 2
) -> tuple[Figure, list[Axes]]:
  """Makes a figure with a grid of panels that leaves room for all text.

  Args:
    number: number of panels.
    height: height of each panel in inches.
    columns: maximum number of columns.
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


def band(axes: Axes, x, middle, low, high, **drawn: Any):
  """Draws a line with a band around it."""
  axes.plot(x, middle, **drawn)
  axes.fill_between(x, low, high, color=drawn["color"], alpha=0.15, lw=0)


def title(axes: Axes, text: str):
  """Sets a panel's title, wrapped to its width."""
  axes.set_title(textwrap.fill(shortened(text, 90), 42), fontsize="medium")


def steps_axis(axes: Axes, name: str = "environment steps"):
  """Labels an x-axis of steps or seconds from 0, with k for thousands.

  Call it when all lines are drawn.
  """
  axes.set_xlabel(name, fontsize="small")
  axes.set_xlim(0.0, max(1.0, axes.get_xlim()[1]))
  # Of whole numbers, none has a prefix such as milli.
  axes.xaxis.set_major_locator(
    ticker.MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True)
  )
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))


def returns_axis(axes: Axes):
  """Labels a y-axis of training returns."""
  axes.set_ylabel(f"return, last {EPISODE_WINDOW} episodes", fontsize="small")


def legend(figure: Figure):
  """Adds one legend for all panels, below them so that it covers no line.

  Long names are wrapped between their words.
  """
  entries: dict[str, Any] = {}
  for axes in figure.axes:
    for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(name, handle)
  for old in list(figure.legends):
    old.remove()
  if not entries:
    return
  names = [_wrapped(name) for name in entries]
  columns, height = _legend_layout(names, figure.get_figwidth())
  figure.set_figheight(figure.get_figheight() + height)
  figure.legend(
    entries.values(), names, loc="outside lower center", ncols=columns,
    fontsize="small", frameon=False, handlelength=3,
  )


def _wrapped(name: str) -> str:
  """Returns a name in lines of at most `_LEGEND_LETTERS`."""
  lines = textwrap.wrap(
    name, _LEGEND_LETTERS, break_long_words=False, break_on_hyphens=False
  )
  return "\n".join(shortened(line, _LEGEND_LETTERS) for line in lines)


def _legend_layout(names: Sequence[str], width: float) -> tuple[int, float]:
  """Returns the columns and the height in inches of a legend.

  Args:
    names: of the entries, with line breaks.
    width: of the figure in inches.
  """
  lines = [name.splitlines() for name in names]
  # Approximate widths in points: of a letter of the small font, and a handle.
  longest = 5.0 * max(len(line) for of in lines for line in of) + 40.0
  columns = max(1, min(len(names), int(72 * width / longest)))
  numbers = np.array_split(list(map(len, lines)), columns)
  return columns, 0.2 * max(column.sum() for column in numbers)


def narrow(figure: Figure):
  """Rearranges a figure for a phone: one column of panels."""
  axes = figure.axes
  specification = axes[0].get_subplotspec()
  assert specification is not None
  rows = specification.get_gridspec().nrows
  height = figure.get_figheight()
  for old in figure.legends:
    names = [text.get_text() for text in old.get_texts()]
    height -= _legend_layout(names, figure.get_figwidth())[1]
  height /= rows
  grid = figure.add_gridspec(len(axes), 1)
  for number, panel in enumerate(axes):
    panel.set_subplotspec(grid[number, 0])
    if any("\n" in x.get_text() for x in panel.get_xticklabels()):
      panel.tick_params(axis="x", labelsize="x-small")
  figure.set_size_inches(_NARROW, height * len(axes))
  if figure.legends:
    legend(figure)


def _mark_single_points(figure: Figure):
  """Draws a marker where a line has one point, which is invisible without."""
  for axes in figure.axes:
    for line in axes.lines:
      if np.isfinite(np.asarray(line.get_ydata(), float)).sum() == 1:
        line.set_markevery(None)
        if line.get_marker() == "None":
          line.set_marker("o")


def save(figure: Figure, file: pathlib.Path | BinaryIO, dpi: int):
  """Writes a figure as PNG, with "$" in names as plain text, not as a formula.

  Marks lines of a single point.

  Args:
    figure: made by `panels`.
    file: path, or a file that is open for writing.
    dpi: resolution in dots per inch.
  """
  for text in figure.findobj(Text):
    text.set_parse_math(False)
  _mark_single_points(figure)
  figure.savefig(file, format="png", dpi=dpi)


def share_y_limits(grid: Sequence[Axes]):
  """Gives panels the same y-limits, around all that is drawn in them."""
  lows, highs = zip(*(axes.get_ylim() for axes in grid), strict=True)
  for axes in grid:
    axes.set_ylim(min(lows), max(highs))


def least_span(axes: Axes, which: str, span: float):
  """Widens the x- or y-axis to a span, so that small differences look small."""
  limits = axes.set_xlim if which == "x" else axes.set_ylim
  low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
  missing = span - (high - low)
  if missing > 0:
    limits(low - missing / 2, high + missing / 2)
