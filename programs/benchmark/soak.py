"""Trains for an hour while processes are killed and frozen.

Every minute a random node of a local run is killed (SIGKILL) or frozen for ten
seconds (SIGSTOP, SIGCONT). Reports environment steps per second, the growth of
each process's memory and open files over its life, and the share of the actors'
steps that was never learned from. Fails if the run ends early or a process
grows by more than 5%.
"""

import argparse
import collections
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import psutil
from matplotlib import figure
from scipy import stats

from acme_stac.evaluation import logs
from programs.benchmark import measuring
from programs.run import paths

_ARGUMENTS = (
  "--config=configs/small.py:gymnasium:CartPole-v1",
  "--config.num_environment_steps=1000000000",
  "--num_actors=2",
  "--restart=all",
  # A row for every trajectory, to count what was lost.
  "--config.log_every_seconds=0.001",
)
# Actors are chosen twice as often. A run ends when any other node dies too
# often within ten minutes.
_WEIGHTS = {
  "actor": 2, "evaluator": 1, "variables": 1, "counter": 1, "replay": 1,
  "learner": 1,
}
_FROZEN_SECONDS = 10.0
_SAMPLE_SECONDS = 5.0
# A process has allocated all it needs after this time.
_WARM_UP_SECONDS = 60.0
MAX_GROWTH = 0.05


class Sample(NamedTuple):
  """One process at one moment.

  Attributes:
    seconds: since the start of the run.
    node: for example "actor/0".
    pid: of the process.
    megabytes: of memory that no other process shares.
    files: open files.
  """

  seconds: float
  node: str
  pid: int
  megabytes: float
  files: int


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--workdir", type=paths.path, required=True, help="of the run"
  )
  parser.add_argument("--minutes", type=float, default=60, help="of the run")
  parser.add_argument(
    "--seconds_between", type=float, default=60, help="two disturbances"
  )
  parser.add_argument("--seed", type=int, default=0, help="of the disturbances")
  parser.add_argument(
    "train", nargs="*", help="further flags of programs.train, after --"
  )


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Returns a row for each node, and the run's rates, events and samples."""
  rng = random.Random(options.seed)
  started = time.monotonic()
  samples: list[Sample] = []
  events: list[tuple[float, str]] = []
  with subprocess.Popen([
    sys.executable, "-m", "programs.train", f"--workdir={options.workdir}",
    *_ARGUMENTS, *options.train,
  ]) as process:
    next_event = options.seconds_between
    try:
      while (
        process.poll() is None
        and (now := time.monotonic() - started) < 60 * options.minutes
      ):
        samples += _sample(process.pid, now)
        if now > next_event and (event := _disturb(process.pid, rng)):
          events.append((now, event))
          next_event += options.seconds_between
          print(event, file=sys.stderr)
        time.sleep(_SAMPLE_SECONDS)
    finally:
      survived = process.poll() is None
      if survived:
        process.send_signal(signal.SIGINT)
  rows = growth(samples)
  if not survived or process.returncode:
    rows.append({
      "node": "run", "error": f"It ended with exit code {process.returncode}."
    })
  return {
    **_rates(options.workdir),
    "events": collections.Counter(event for _, event in events),
    "event_seconds": [seconds for seconds, _ in events],
    "samples": [sample._asdict() for sample in samples],
    "rows": rows,
  }


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of the result of `run`."""
  return measuring.table(result["rows"], {
    "node": "{node}",
    "minutes": "{minutes:.0f}",
    "memory, MB": "{megabytes:.0f}",
    "memory grew": "{memory_growth:.1%}",
    "files grew": "{files_growth}",
  })


def plot(result: dict[str, Any]) -> figure.Figure:
  """Draws memory and open files over time."""
  samples = pd.DataFrame(result["samples"])
  drawing = figure.Figure(figsize=(10, 6), layout="constrained")
  panels = {"megabytes": "unshared memory, MB", "files": "open files"}
  for axes, (column, label) in zip(
    drawing.subplots(2, sharex=True), panels.items(), strict=True
  ):
    for node, of_node in samples.groupby("node"):
      axes.plot(
        of_node.seconds / 60, of_node[column], label=node, linewidth=1
      )
    for seconds in result["event_seconds"]:
      axes.axvline(seconds / 60, color="0.85", linewidth=0.5, zorder=0)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
  axes.set_xlabel("minutes; a vertical line for each process killed or frozen")
  axes.legend(fontsize=8, ncols=4)
  return drawing


def _disturb(pid: int, rng: random.Random) -> str | None:
  """Kills or freezes a node of a run; returns a description."""
  nodes = dict(measuring.processes_of(pid))
  names = sorted(nodes.keys() - {"launcher"})
  if not names:
    return None
  weights = [_WEIGHTS[name.partition("/")[0]] for name in names]
  (name,) = rng.choices(names, weights)
  try:
    if rng.random() < 0.7:
      nodes[name].kill()
      return f"killed {name}"
    nodes[name].suspend()
    time.sleep(_FROZEN_SECONDS)
    nodes[name].resume()
    return f"froze {name}"
  except psutil.NoSuchProcess:
    return f"missed {name}"


def _sample(pid: int, seconds: float) -> list[Sample]:
  samples = []
  for name, process in measuring.processes_of(pid):
    try:
      samples.append(Sample(
        seconds,
        name,
        process.pid,
        process.memory_full_info().uss / 1e6,
        process.num_fds(),
      ))
    except psutil.Error:  # It has ended.
      continue
  return samples


def growth(samples: Sequence[Sample]) -> list[dict[str, Any]]:
  """Measures the growth of memory and files in each node's longest life.

  Memory grows along the median of the lines through any two samples (Theil and
  Sen): messages in flight, tens of megabytes at a time, make single samples
  jump.

  Returns:
    A row for each node; with "error" if it grows by more than `MAX_GROWTH`.
  """
  table = pd.DataFrame(samples, columns=Sample._fields)
  born = table.groupby(["node", "pid"]).seconds.transform("min")
  warm = table[table.seconds > born + _WARM_UP_SECONDS]
  rows = []
  for node, of_node in warm.groupby("node"):
    life = of_node[of_node.pid == of_node.pid.mode()[0]]
    first, last = life.iloc[0], life.iloc[-1]
    share = 0.0
    if len(life) > 1:
      slope, intercept, *_ = stats.theilslopes(life.megabytes, life.seconds)
      start = intercept + slope * first.seconds
      share = float(slope * (last.seconds - first.seconds) / start)
    row = {
      "node": node,
      "minutes": float(last.seconds - first.seconds) / 60,
      "megabytes": float(last.megabytes),
      "memory_growth": share,
      "files_growth": int(last.files - first.files),
    }
    if share > MAX_GROWTH:
      row["error"] = f"Its memory grew by {share:.0%}."
    rows.append(row)
  return rows


def _rates(workdir: pathlib.Path) -> dict[str, float]:
  """Returns steps written and learned, and steps per second."""
  made = sum(
    float(logs.over_lives(table["actor_environment_steps"]).iloc[-1])
    for table in logs.read_actors(workdir)
  )
  learner = logs.read(workdir / "logs" / "learner.csv")
  counts = learner["environment_steps"]
  # A learner's new life goes on from its checkpoint.
  learned = float(counts.iloc[0] + counts.diff().clip(lower=0.0).sum())
  rate = learner["environment_steps_per_second"]
  tenth = max(1, len(rate) // 10)
  return {
    "steps_written": made,
    "steps_learned": learned,
    "share_lost": 1 - learned / made,
    "steps_per_second_first_tenth": float(rate[:tenth].median()),
    "steps_per_second_last_tenth": float(rate[-tenth:].median()),
  }
