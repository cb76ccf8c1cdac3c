"""Rates and returns of the contenders, as rows, a table and a drawing."""

import statistics
from collections.abc import Callable
from typing import Any

from matplotlib import figure, ticker

from programs.benchmark import measuring
from programs.benchmark.peers.contenders import OURS
from programs.benchmark.peers.race import Point, changes


def compare(
  curves: dict[str, list[list[Point]]],
  errors: dict[str, str],
  warm_up: float,
) -> list[dict[str, Any]]:
  """Returns a row for each contender.

  Args:
    curves: name -> points of each round.
    errors: name -> why a round gave none.
    warm_up: seconds of a curve that are not counted in rates.

  Returns:
    Rates (median and range over rounds), their ratio to the fastest peer's, and
    returns at the steps and at the time that all have reached.
  """
  rates = {
    name: [_rate(points, warm_up) for points in rounds]
    for name, rounds in curves.items()
    if rounds
  }
  ends = [points[-1] for rounds in curves.values() for points in rounds]
  steps = min((point.steps for point in ends), default=0)
  seconds = min((point.seconds for point in ends), default=0.0)
  rows: list[dict[str, Any]] = []
  for name, rounds in curves.items():
    if name not in rates:
      rows.append({"contender": name, "error": errors.get(name, "no result")})
      continue
    rows.append({
      "contender": name,
      "rounds": len(rounds),
      # Of a round that gave none.
      **({"round_error": errors[name]} if name in errors else {}),
      "steps_per_second": statistics.median(rates[name]),
      "slowest": min(rates[name]),
      "fastest": max(rates[name]),
      "equal_steps": steps,
      "return_at_equal_steps": _mean_return(
        rounds, lambda point: point.steps >= steps
      ),
      "equal_seconds": seconds,
      "return_at_equal_time": _mean_return(
        rounds, lambda point: point.seconds >= seconds
      ),
    })
  peers = [
    row["steps_per_second"]
    for row in rows
    if "error" not in row and row["contender"] not in OURS
  ]
  for row in rows:
    if peers and "error" not in row:
      row["ratio_to_fastest_peer"] = row["steps_per_second"] / max(peers)
  return rows


def _rate(points: list[Point], warm_up: float) -> float:
  """Returns steps per second after the warm-up, between two reports."""
  reports = changes(points, warm_up)
  first, last = reports[0], reports[-1]
  return (last.steps - first.steps) / (last.seconds - first.seconds)


def _mean_return(
  rounds: list[list[Point]], reached: Callable[[Point], bool]
) -> float | None:
  """Returns the mean over rounds of the return where `reached` first holds."""
  returns = []
  for points in rounds:
    at = next((point for point in points if reached(point)), None)
    if at is not None and at.episode_return is not None:
      returns.append(at.episode_return)
  return statistics.fmean(returns) if returns else None


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `run` returns."""

  def number(name: str):
    def cell(row) -> str:
      value = row.get(name)
      return "" if value is None else f"{value:,.0f}"

    return cell

  rows = result["rows"]
  whole: dict[str, Any] = next(
    (row for row in rows if "error" not in row), {}
  )
  return measuring.table(rows, {
    "contender": lambda row: row["contender"],
    "rounds": lambda row: (
      f"{row['rounds']}, then: {row['round_error']}"
      if "round_error" in row
      else f"{row['rounds']}"
    ),
    "steps/s (range)": lambda row: (
      f"{row['steps_per_second']:,.0f} ({row['slowest']:,.0f} to"
      f" {row['fastest']:,.0f})"
    ),
    "÷ fastest peer": lambda row: (
      f"{row.get('ratio_to_fastest_peer', float('nan')):.2f}"
    ),
    f"return at {whole.get('equal_steps', 0):,} steps": number(
      "return_at_equal_steps"
    ),
    f"return after {whole.get('equal_seconds', 0):.0f} s": number(
      "return_at_equal_time"
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
