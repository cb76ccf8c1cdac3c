"""Trains for an hour while processes die and freeze, and keeps the books.

  python -m programs.benchmark.soak --workdir=runs/soak --minutes=60

Every minute a node of a local run, chosen at random, is killed (SIGKILL) or
stopped for ten seconds (SIGSTOP, SIGCONT). Measured are environment steps per
second, memory and open files of every process over its life, and how much of
what the actors had written was never learned from. Writes soak.csv, soak.json
and soak.png into the work directory.
"""

import collections
import csv
import json
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, NamedTuple

import numpy as np
import psutil
from matplotlib import figure
from scipy import stats

from acme_stac.evaluation import logs
from programs import commands
from programs.launch import node_process
from programs.run import arguments

_ARGUMENTS = (
  "--config=configs/small.py:gymnasium:CartPole-v1",
  "--config.num_environment_steps=1000000000",
  "--num_actors=2",
  "--restart=all",
  # A row for every item, for the books.
  "--config.log_every_seconds=0.001",
)
# Each of them; a node that dies too often in ten minutes ends the run.
_WEIGHTS = {
  "actor": 2, "evaluator": 1, "variables": 1, "counter": 1, "replay": 1,
  "learner": 1,
}
_FROZEN_SECONDS = 10.0
_SAMPLE_SECONDS = 5.0
# A process has all that it needs after this, and then grows by less than that.
_WARM_UP_SECONDS = 60.0
_MAX_GROWTH = 0.05


class _Sample(NamedTuple):
  seconds: float
  node: str
  pid: int
  megabytes: float
  files: int


def _nodes(launcher: psutil.Process) -> dict[str, psutil.Process]:
  """Returns the processes of a run by node."""
  found = {}
  for process in launcher.children(recursive=True):
    try:
      name = process.environ().get(node_process.NODE_NAME)
    except psutil.Error:
      continue
    if name:
      found[name] = process
  return found


def _disturb(nodes: dict[str, psutil.Process], rng: random.Random) -> str:
  """Kills or freezes one of them; returns what was done."""
  names = sorted(nodes)
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


def _take(launcher: psutil.Process, started: float) -> list[_Sample]:
  samples = []
  everybody = {"launcher": launcher, **_nodes(launcher)}
  for name, process in everybody.items():
    try:
      samples.append(_Sample(
        time.monotonic() - started,
        name,
        process.pid,
        process.memory_full_info().uss / 1e6,
        process.num_fds(),
      ))
    except psutil.Error:
      continue
  return samples


def _growth(samples: list[_Sample]) -> dict[str, Any]:
  """Returns how memory and files grew in the longest life of each node."""
  lives = collections.defaultdict(list)
  for sample in samples:
    lives[sample.node, sample.pid].append(sample)
  longest: dict[str, list[_Sample]] = {}
  for (node, _), life in lives.items():
    warm = [s for s in life if s.seconds > life[0].seconds + _WARM_UP_SECONDS]
    if len(warm) > len(longest.get(node, ())):
      longest[node] = warm
  return {
    node: {
      "minutes": (warm[-1].seconds - warm[0].seconds) / 60,
      "memory_growth": _trend(warm),
      "megabytes": warm[-1].megabytes,
      "files_growth": warm[-1].files - warm[0].files,
    }
    for node, warm in sorted(longest.items())
  }


def _trend(life: list[_Sample]) -> float:
  """Returns by what share memory grows over a life along a straight line.

  The line is the median of those through any two samples: messages that are on
  their way, tens of megabytes at a time, make single samples jump.
  """
  seconds = np.array([sample.seconds for sample in life])
  values = [sample.megabytes for sample in life]
  if len(life) < 2:
    return 0.0
  slope, intercept, _, _ = stats.theilslopes(values, seconds)
  start, end = intercept + slope * seconds[[0, -1]]
  return float(end / start - 1)


def _column(path: pathlib.Path, name: str) -> np.ndarray:
  return logs.read(path)[name].to_numpy()


def _made_and_learned(logs: pathlib.Path) -> tuple[float, float]:
  """Returns environment steps that reached the queue, and those learned."""

  def total(values: np.ndarray) -> float:
    # Every life counts for itself; of a learner, from its checkpoint on.
    steps = np.diff(values)
    return float(values[0] + steps[steps > 0].sum())

  made = 0.0
  for path in logs.glob("actor_*.csv"):
    values = _column(path, "actor_environment_steps")
    # A new life begins at nothing, not at its first row.
    begins = np.flatnonzero(np.diff(values) < 0) + 1
    made += total(values) + float(values[begins].sum())
  return made, total(_column(logs / "learner.csv", "environment_steps"))


def _plot(samples: list[_Sample], events: list[tuple[float, str]]) -> Any:
  drawn = figure.Figure(figsize=(10, 6), layout="constrained")
  for number, name in enumerate(("megabytes", "files"), 1):
    axes = drawn.add_subplot(2, 1, number)
    for node in sorted({sample.node for sample in samples}):
      of_node = [sample for sample in samples if sample.node == node]
      axes.plot(
        [s.seconds / 60 for s in of_node], [getattr(s, name) for s in of_node],
        label=node, linewidth=1,
      )
    for seconds, _ in events:
      axes.axvline(seconds / 60, color="0.85", linewidth=0.5, zorder=0)
    axes.set_ylabel(name if name == "files" else "memory of its own, MB")
    axes.set_ylim(bottom=0)
  axes.set_xlabel("minutes; a line for every process killed or frozen")
  axes.legend(fontsize=8, ncols=4)
  return drawn


def main(argv: list[str]) -> int:
  """Runs the command; returns 0 if the run survived and no process grew."""
  parser = arguments.Parser("programs.benchmark.soak", __doc__)
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--minutes", type=float, default=60)
  parser.add_argument("--seconds_between", type=float, default=60)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "train", nargs="*", help="further flags of programs.train, after --"
  )
  options = parser.parse_args(argv)
  rng = random.Random(options.seed)
  started = time.monotonic()
  command = [
    sys.executable, "-m", "programs.train", f"--workdir={options.workdir}",
    *_ARGUMENTS, *options.train,
  ]
  samples: list[_Sample] = []
  events: list[tuple[float, str]] = []
  with subprocess.Popen(command) as run:
    launcher = psutil.Process(run.pid)
    next_event = started + options.seconds_between
    try:
      while time.monotonic() - started < 60 * options.minutes:
        if run.poll() is not None:
          break
        samples += _take(launcher, started)
        if time.monotonic() > next_event and (nodes := _nodes(launcher)):
          event = _disturb(nodes, rng)
          events.append((time.monotonic() - started, event))
          next_event += options.seconds_between
          print(f"soak: {event}", flush=True)
        time.sleep(_SAMPLE_SECONDS)
    finally:
      survived = run.poll() is None
      if survived:
        run.send_signal(signal.SIGINT)
  result = {
    "survived": survived,
    "exit_code": run.returncode,
    "events": dict(
      collections.Counter(event for _, event in events).most_common()
    ),
    **_rates(options.workdir),
    "growth": (growth := _growth(samples)),
    "grew": [
      node for node, life in growth.items()
      if life["memory_growth"] > _MAX_GROWTH
    ],
  }
  _write(options.workdir, result, samples, events)
  print(json.dumps(result, indent=2))
  return 0 if survived and not run.returncode and not result["grew"] else 1


def _rates(workdir: pathlib.Path) -> dict[str, float]:
  made, learned = _made_and_learned(workdir / "logs")
  rate = _column(workdir / "logs" / "learner.csv",
                 "environment_steps_per_second")
  tenth = max(1, len(rate) // 10)
  return {
    "steps_written": made,
    "steps_learned": learned,
    "share_lost": 1 - learned / made,
    "steps_per_second_first_tenth": float(np.median(rate[:tenth])),
    "steps_per_second_last_tenth": float(np.median(rate[-tenth:])),
  }


def _write(
  workdir: pathlib.Path,
  result: dict[str, Any],
  samples: list[_Sample],
  events: list[tuple[float, str]],
):
  (workdir / "soak.json").write_text(json.dumps(result, indent=2) + "\n")
  with open(workdir / "soak.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(_Sample._fields)
    writer.writerows(samples)
  _plot(samples, events).savefig(workdir / "soak.png", dpi=120)


if __name__ == "__main__":
  commands.run(main)
