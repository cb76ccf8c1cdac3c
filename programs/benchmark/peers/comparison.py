"""Rates and returns of the contenders: rows, a table and a drawing."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import figure, ticker

from programs.benchmark import measuring
from programs.benchmark.peers.contenders import OURS, Point, reports


def compare(
  curves: Mapping[str, Sequence[list[Point]]],
  errors: Mapping[str, str],
  warm_up: float,
) -> list[dict[str, Any]]:
  """Returns a row for each contender.

  Args:
    curves: name -> points of each round.
    errors: name -> why a round has no points.
    warm_up: seconds of a curve that are not counted in rates.

  Returns:
    Rates (median and range over rounds), their ratio to the fastest peer's, and
    returns at the steps and at the time that all have reached.
  """
  ends = [points[-1] for rounds in curves.values() for points in rounds]
  steps = min((point.steps for point in ends), default=0)
  seconds = min((point.seconds for point in ends), default=0.0)
  rows: list[dict[str, Any]] = []
  for name, rounds in curves.items():
    row: dict[str, Any] = {"contender": name}
    rows.append(row)
    if not rounds:
      row["error"] = errors.get(name, "no result")
      continue
    rates = [_rate(points, warm_up) for points in rounds]
    row |= {
      "rounds": len(rates),
      "steps_per_second": statistics.median(rates),
      "slowest": min(rates),
      "fastest": max(rates),
      "equal_steps": steps,
      "return_at_equal_steps": _mean_return(
        rounds, lambda point: point.steps >= steps
      ),
      "equal_seconds": seconds,
      "return_at_equal_time": _mean_return(
        rounds, lambda point: point.seconds >= seconds
      ),
    }
    if name in errors:
      row["round_error"] = errors[name]
  measured = [row for row in rows if "error" not in row]
  peers = [
    row["steps_per_second"] for row in measured if row["contender"] not in OURS
  ]
  for row in measured if peers else []:
    row["ratio_to_fastest_peer"] = row["steps_per_second"] / max(peers)
  return rows


def _rate(points: list[Point], warm_up: float) -> float:
  """Returns steps per second after the warm-up, between two reports."""
  first, *_, last = reports(points, warm_up)
  return (last.steps - first.steps) / (last.seconds - first.seconds)


def _mean_return(
  rounds: Sequence[list[Point]], reached: Callable[[Point], bool]
) -> float | None:
  """Returns the mean over rounds of the return where `reached` first holds."""
  points = [next(filter(reached, points), None) for points in rounds]
  returns = [
    point.episode_return
    for point in points
    if point is not None and point.episode_return is not None
  ]
  return statistics.fmean(returns) if returns else None


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of the result of `run`."""

  def number(name: str, form: str):
    return lambda row: measuring.number(row.get(name), form)

  rows = result["rows"]
  measured: dict[str, Any] = next(
    (row for row in rows if "error" not in row), {}
  )
  return measuring.table(rows, {
    "contender": "{contender}",
    "rounds": lambda row: ", then: ".join(
      str(row[name]) for name in ("rounds", "round_error") if name in row
    ),
    "steps/s (range)": (
      "{steps_per_second:,.0f} ({slowest:,.0f} to {fastest:,.0f})"
    ),
    "÷ fastest peer": number("ratio_to_fastest_peer", ".2f"),
    f"return at {measured.get('equal_steps', 0):,} steps": number(
      "return_at_equal_steps", ",.0f"
    ),
    f"return after {measured.get('equal_seconds', 0):.0f} s": number(
      "return_at_equal_time", ",.0f"
    ),
  })


def plot(result: dict[str, Any]) -> figure.Figure:
  """Draws the rates with their ranges."""
  rows = [row for row in result["rows"] if "error" not in row]
  rows.sort(key=lambda row: row["steps_per_second"])
  rates = [row["steps_per_second"] for row in rows]
  drawing = figure.Figure(
    figsize=(7, 0.5 * len(rows) + 1), layout="constrained"
  )
  axes = drawing.add_subplot()
  axes.barh(
    [row["contender"] for row in rows],
    rates,
    xerr=[
      [row["steps_per_second"] - row["slowest"] for row in rows],
      [row["fastest"] - row["steps_per_second"] for row in rows],
    ],
    color=["C0" if row["contender"] in OURS else "C7" for row in rows],
    capsize=3,
  )
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
  axes.set_xlabel("environment steps (frames) per second, range of rounds")
  return drawing
