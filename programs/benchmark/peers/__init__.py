"""The same network and cores under this project and its peers.

Contenders take turns, so that whatever else the machine does meets all of them.
Each may use all cores and has its own best batched settings, and updates of 640
time steps: CartPole with an MLP of (256, 256), or Pong with IMPALA's shallow
torso, and a policy and a value on top. Steps/s (frames/s in Pong) are counted
after a warm-up; returns are those of training, the mean of the last 100
episodes or what the library reports, with each library's own step size and loss
weights.

dm-acme runs on this project's packages. The others are not installed with it;
give each the Python of an environment of its own (Python 3.10):

  python3.10 -m venv sf
  sf/bin/pip install "sample-factory==2.1.1" "envpool==0.8.4" "shimmy==1.3.0"
  python3.10 -m venv rllib && rllib/bin/pip install "ray[rllib]==2.60.0" torch
"""

import argparse
import json
import math
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from matplotlib import figure, ticker

from acme_stac.evaluation import logs
from programs.benchmark import cases, measuring

_HERE = pathlib.Path(__file__).parent
_START_SECONDS = 240.0
_POLL_SECONDS = 0.25

# This project's agents.
_OURS = ("impala", "stacx")
# Others: name -> script and its arguments. Sample Factory by its documented
# command for Gymnasium, and as its examples do it for batched environments.
_PEERS: dict[str, dict[str, tuple[str, list[str]]]] = {
  "cartpole": {
    "acme": ("acme_impala.py", ["--case=cartpole"]),
    "sample_factory": (
      "sample_factory_appo.py",
      ["--case=cartpole", "--batched=0", "--workers=2", "--environments=16"],
    ),
    "sample_factory_batched": ("sample_factory_appo.py", ["--case=cartpole"]),
    "rllib": ("rllib_impala.py", []),
  },
  "pong_shallow": {
    "acme": ("acme_impala.py", ["--case=pong_shallow"]),
    "sample_factory_batched": (
      "sample_factory_appo.py", ["--case=pong_shallow"]
    ),
  },
}


class Point(NamedTuple):
  """How far a contender is.

  Attributes:
    seconds: since its first report.
    steps: environment steps.
    episode_return: of the last episodes of training; None if unknown yet.
  """

  seconds: float
  steps: int
  episode_return: float | None


class Contender(NamedTuple):
  """A program to measure.

  Attributes:
    command: from a directory to the command line.
    read: from that directory to steps and return so far, None before the first.
  """

  command: Callable[[pathlib.Path], list[str]]
  read: Callable[[pathlib.Path], tuple[int, float | None] | None]


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--case", default="cartpole", choices=list(_PEERS),
    help="what is learned; RLlib takes part in cartpole",
  )
  parser.add_argument(
    "--sample_factory", metavar="PYTHON", help="its environment's interpreter"
  )
  parser.add_argument(
    "--rllib", metavar="PYTHON", help="its environment's interpreter"
  )
  parser.add_argument(
    "--contenders", nargs="+", metavar="NAME",
    help=f"of {[*_OURS, *_PEERS['cartpole']]}; all by default",
  )
  parser.add_argument("--rounds", type=int, default=3, help="of all contenders")
  parser.add_argument(
    "--warm_up", type=float, default=15.0, help="seconds not counted"
  )
  parser.add_argument(
    "--seconds", type=float, default=45.0, help="of each measurement"
  )


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Returns a row for each contender."""
  contenders = _contenders(options)
  curves: dict[str, list[list[Point]]] = {name: [] for name in contenders}
  errors: dict[str, str] = {}
  for turn in range(options.rounds):
    for name, contender in contenders.items():
      print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr)
      try:
        curves[name].append(_measure(contender, options))
      except RuntimeError as error:
        errors[name] = str(error)
  return {"rows": compare(curves, errors, options.warm_up), "curves": curves}


def _contenders(options: argparse.Namespace) -> dict[str, Contender]:
  known = {name: _ours(options.case, name) for name in _OURS}
  interpreters = {
    "acme": sys.executable,
    "sample_factory": options.sample_factory,
    "sample_factory_batched": options.sample_factory,
    "rllib": options.rllib,
  }
  for name, (script, arguments) in _PEERS[options.case].items():
    if interpreters[name]:
      if shutil.which(interpreters[name]) is None:
        raise ValueError(f"There is no interpreter {interpreters[name]!r}.")
      known[name] = _peer(interpreters[name], script, arguments)
  if not options.contenders:
    return known
  for name in options.contenders:
    if name not in known:
      raise ValueError(
        f"There is no contender {name!r} of {options.case} among"
        f" {list(known)}; sample_factory and rllib need --sample_factory and"
        " --rllib."
      )
  return {name: known[name] for name in options.contenders}


def _ours(case: str, agent: str) -> Contender:
  def command(directory: pathlib.Path) -> list[str]:
    return [
      sys.executable, "-m", "programs.train",
      *cases.flags(case, agent),
      "--num_actors=1",
      "--config.environments_per_actor=32",
      "--config.num_environment_steps=2000000000",
      "--config.stac.head_sizes=()",
      "--config.stac.lstm_size=0",
      f"--workdir={directory / 'run'}",
    ]

  def read(directory: pathlib.Path) -> tuple[int, float | None] | None:
    log = logs.read(directory / "run" / "logs" / "learner.csv")
    if log.empty:
      return None
    last = log.iloc[-1]
    mean_return = float(last["episode_return"])
    return int(last["environment_steps"]), (
      None if math.isnan(mean_return) else mean_return
    )

  return Contender(command, read)


def _peer(python: str, script: str, arguments: list[str]) -> Contender:
  def command(directory: pathlib.Path) -> list[str]:
    return [
      python, str(_HERE / script), f"--log={directory / 'log'}", *arguments
    ]

  def read(directory: pathlib.Path) -> tuple[int, float | None] | None:
    try:
      text = (directory / "log").read_text()
    except FileNotFoundError:
      return None
    # The last line may be half written.
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines:
      return None
    last = json.loads(lines[-1])
    return last["steps"], last["return"]

  return Contender(command, read)


def _measure(contender: Contender, options) -> list[Point]:
  """Runs a contender and returns how it went, from its first report on."""
  with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    output = directory / "output"
    with open(output, "w") as file:
      process = subprocess.Popen(
        contender.command(directory),
        stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
      )
    started = time.monotonic()
    first: float | None = None
    points: list[Point] = []
    try:
      while first is None or (
        time.monotonic() - first < options.warm_up + options.seconds
      ):
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if process.poll() is not None or (
          first is None and now - started > _START_SECONDS
        ):
          tail = " ".join(output.read_text().splitlines()[-3:])
          raise RuntimeError(f"It ended, or did not start: {tail}")
        state = contender.read(directory)
        if state is not None:
          first = now if first is None else first
          points.append(Point(now - first, *state))
    finally:
      measuring.end(process)
  if len(_changes(points, options.warm_up)) < 2:
    raise RuntimeError("There are too few reports; raise --seconds.")
  return points


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
    if "error" not in row and row["contender"] not in _OURS
  ]
  for row in rows:
    if peers and "error" not in row:
      row["ratio_to_fastest_peer"] = row["steps_per_second"] / max(peers)
  return rows


def _changes(points: list[Point], warm_up: float) -> list[Point]:
  """Returns the points after the warm-up at which there was news."""
  return [
    point
    for previous, point in zip(points, points[1:], strict=False)
    if point.steps != previous.steps and point.seconds >= warm_up
  ]


def _rate(points: list[Point], warm_up: float) -> float:
  """Returns steps per second after the warm-up, between two reports."""
  changes = _changes(points, warm_up)
  first, last = changes[0], changes[-1]
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
  """Returns a Markdown table of what `run` gives."""

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
    color=["C0" if row["contender"] in _OURS else "C7" for row in rows],
    capsize=3,
  )
  axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
  axes.set_xlabel("environment steps (frames) per second, range of rounds")
  return drawing
