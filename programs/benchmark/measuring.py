"""Time, processor time and tables, for every benchmark."""

import contextlib
import datetime
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import matplotlib.figure
import psutil
from matplotlib import ticker

_END_SECONDS = 40.0


class Cost(NamedTuple):
  """What one call costs.

  Attributes:
    seconds: by the clock.
    cpu_seconds: of all threads of this process.
  """

  seconds: float
  cpu_seconds: float


def cost_of(call: Callable[[], Any], calls: int) -> Cost:
  """Returns what one call costs, the mean of some."""
  started, cpu_started = time.perf_counter(), time.process_time()
  for _ in range(calls):
    call()
  return Cost(
    (time.perf_counter() - started) / calls,
    (time.process_time() - cpu_started) / calls,
  )


def steady_cost(call: Callable[[], Any], seconds: float) -> Cost:
  """Returns what one call costs, over at least so many seconds, once warm."""
  calls = 1
  # The first calls compile, the second too if its arguments are of other kinds.
  cost_of(call, 3)
  while True:
    cost = cost_of(call, calls)
    if cost.seconds * calls >= seconds:
      return cost
    calls = max(2 * calls, int(1.1 * seconds / cost.seconds))


def machine() -> dict[str, Any]:
  """Returns where, with what and when something is measured."""
  result: dict[str, Any] = {
    "command": sys.argv[1:],
    "packages": {
      name: metadata.version(name) for name in ("jax", "jaxlib", "dm-haiku")
    },
    "machine": platform.platform(),
    "processor": _processor(),
    "cores": len(os.sched_getaffinity(0)),
    "load_average": os.getloadavg()[0],
    "python": platform.python_version(),
    "date": datetime.date.today().isoformat(),
  }
  # An installed package has no history.
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    result["commit"] = subprocess.run(
      ["git", "rev-parse", "--short", "HEAD"],
      capture_output=True, text=True, check=True,
    ).stdout.strip()
  return result


def end(process: subprocess.Popen):
  """Ends a program, and what it started and has left behind."""
  family: list[psutil.Process] = []
  with contextlib.suppress(psutil.NoSuchProcess):
    family = psutil.Process(process.pid).children(recursive=True)
  process.send_signal(signal.SIGTERM)
  try:
    process.wait(_END_SECONDS)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()
  for child in family:
    with contextlib.suppress(psutil.NoSuchProcess):
      child.kill()


def _processor() -> str:
  try:
    with open("/proc/cpuinfo") as file:
      for line in file:
        if line.startswith("model name"):
          return line.partition(":")[2].strip()
  except OSError:
    pass
  return platform.processor()


def table(
  rows: Iterable[Mapping[str, Any]],
  columns: Mapping[str, Callable[[Any], str]],
) -> str:
  """Returns a Markdown table.

  Args:
    rows: what is shown; a row with "error" shows that in its last cells.
    columns: title -> cell of a row.
  """
  lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
  for row in rows:
    filled = cells(row, columns)
    filled += [""] * (len(columns) - len(filled))
    lines.append(f"| {' | '.join(filled)} |")
  return "\n".join(lines)


def cells(
  row: Mapping[str, Any], columns: Mapping[str, Callable[[Any], str]]
) -> list[str]:
  """Returns the cells of a row; if it has "error", that is the last one."""
  filled: list[str] = []
  for number, cell in enumerate(columns.values()):
    if number and "error" in row:
      return [*filled, row["error"]]
    filled.append(cell(row))
  return filled


def lines(
  rows: Iterable[Mapping[str, Any]],
  x: str,
  label: Callable[[Mapping[str, Any]], str],
  panels: Mapping[str, Callable[[Mapping[str, Any]], float]],
) -> matplotlib.figure.Figure:
  """Draws how figures grow.

  Args:
    rows: what is drawn; rows with "error" are not.
    x: the column along the axis, which is logarithmic unless that has a 0.
    label: from a row to the line that it belongs to.
    panels: title -> the figure of a row.
  """
  figure = matplotlib.figure.Figure(
    figsize=(3.6 * len(panels), 3.2), layout="constrained"
  )
  series: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    if "error" not in row:
      series.setdefault(label(row), []).append(row)
  for number, (title, value) in enumerate(panels.items(), 1):
    axes = figure.add_subplot(1, len(panels), number)
    for name, members in series.items():
      members = sorted(members, key=lambda row: row[x])
      axes.plot(
        [row[x] for row in members], [value(row) for row in members],
        marker="o", label=name, clip_on=False,
      )
    if all(row[x] for members in series.values() for row in members):
      axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.0f}"))
    axes.set_xlabel(x.replace("_", " "))
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if number == 1 and len(series) > 1:
      axes.legend(fontsize=8)
  return figure
