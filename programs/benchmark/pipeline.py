"""The real program in its steady state, and how much of the machine it uses.

Starts programs.train, waits until it has warmed up, and then compares its rate
with what the cores would allow if environment, inference and learner cost only
the processor time that they cost when each runs by itself. That ratio is the
efficiency.
"""

import argparse
import collections
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any, NamedTuple

import psutil
from matplotlib import figure

import acme_stac
from acme_stac.evaluation import logs
from programs.benchmark import actor, cases, measuring, updates
from programs.launch import node_process, processes
from programs.run import experiment as experiment_lib
from programs.run import validation

_START_SECONDS = 300.0


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  cases.add_arguments(parser)
  parser.add_argument(
    "--agents", nargs="+", default=["impala", "stacx"], metavar="AGENT",
    choices=list(acme_stac.AGENTS), help="presets",
  )
  parser.add_argument(
    "--launch", nargs="+", default=["local_mp", "serial"],
    choices=["local_mp", "serial", "colocated"],
  )
  parser.add_argument(
    "--num_actors", nargs="+", type=int, default=[1], help="actor processes"
  )
  parser.add_argument(
    "--warm_up", type=float, default=15.0, help="seconds after the start"
  )
  parser.add_argument(
    "--seconds", type=float, default=30.0, help="of each measurement"
  )


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Returns a row for each case, agent, launcher and number of actors."""
  rows = []
  for case in options.cases:
    for agent in options.agents:
      print(f"{case}, {agent}: each part by itself", file=sys.stderr)
      costs = _standalone_costs(case, agent)
      for launch in options.launch:
        for num_actors in options.num_actors if launch != "serial" else [1]:
          row = {
            "case": case,
            "agent": agent,
            "launch": launch,
            "num_actors": num_actors,
          }
          print(", ".join(map(str, row.values())), file=sys.stderr)
          try:
            row.update(_measure(case, agent, launch, num_actors, options))
            row.update(_efficiency(row["steps_per_second"], costs))
          except RuntimeError as error:
            row["error"] = str(error)
          rows.append(row)
  return {"rows": rows}


def _standalone_costs(case: str, agent: str) -> dict[str, float]:
  """Returns processor seconds per environment step (frame), by part.

  And the learner's by the clock: its update may not keep every core busy.
  """
  acting = _apart(processes.acting_environment(), _acting_costs, case, agent)
  update = _apart(processes.learning_environment(), _update_cost, case, agent)
  return {
    "environment": acting["environment"].cpu_seconds,
    "inference": acting["inference"].cpu_seconds,
    "learner": update.cpu_seconds,
    "learner_by_the_clock": update.seconds,
  }


def _apart(
  environment: Mapping[str, str], call: Callable[..., Any], *arguments: str
) -> Any:
  """Returns what a call gives in a process of a node's environment."""
  before = dict(os.environ)
  os.environ.update(environment)
  try:
    with futures.ProcessPoolExecutor(
      1, multiprocessing.get_context("spawn")
    ) as pool:
      return pool.submit(call, *arguments).result()
  finally:
    os.environ.clear()
    os.environ.update(before)


def _experiment(case: str, agent: str) -> experiment_lib.Experiment:
  return validation.make_experiment(
    cases.make_config(case, agent), 1, "/nowhere"
  )


def _acting_costs(case: str, agent: str) -> dict[str, measuring.Cost]:
  return actor.measure(_experiment(case, agent), seconds=1.0)


def _update_cost(case: str, agent: str) -> measuring.Cost:
  """Returns what learning from one environment step costs."""
  experiment = _experiment(case, agent)
  config = experiment.config
  update = updates.MeasuredUpdate(experiment.environment_spec, config)
  cost = measuring.steady_cost(lambda: update.time(1), 5.0)
  steps = config.steps_per_update
  return measuring.Cost(cost.seconds / steps, cost.cpu_seconds / steps)


def _efficiency(rate: float, costs: dict[str, float]) -> dict[str, float]:
  cores = measuring.machine()["cores"]
  parts = ("environment", "inference", "learner")
  possible = cores / sum(costs[part] for part in parts)
  return {
    **{f"{part}_cpu_microseconds": 1e6 * costs[part] for part in parts},
    "learner_alone_steps_per_second": 1 / costs["learner_by_the_clock"],
    "possible_steps_per_second": possible,
    "efficiency": rate / possible,
  }


def _measure(
  case: str, agent: str, launch: str, num_actors: int, options
) -> dict[str, Any]:
  with tempfile.TemporaryDirectory() as directory:
    workdir = pathlib.Path(directory)
    started = time.monotonic()
    with open(workdir / "output", "w") as output:
      process = subprocess.Popen(
        [sys.executable, "-m", "programs.train", *cases.flags(case, agent),
         f"--launch={launch}", f"--num_actors={num_actors}",
         "--config.num_environment_steps=2000000000",
         f"--workdir={workdir / 'run'}"],
        stdout=output, stderr=subprocess.STDOUT,
      )
      try:
        return _observe(process, workdir / "run", started, options)
      except RuntimeError as error:
        tail = (workdir / "output").read_text().splitlines()[-1:]
        raise RuntimeError(f"{error} {' '.join(tail)}") from error
      finally:
        measuring.end(process)


def _observe(process, workdir: pathlib.Path, started: float, options):
  """Returns the figures of a running program."""
  log = workdir / "logs" / "learner.csv"
  while not _rows(log):
    if process.poll() is not None:
      raise RuntimeError("The program ended.")
    if time.monotonic() - started > _START_SECONDS:
      raise RuntimeError("The program did not start.")
    time.sleep(0.1)
  first_update = time.monotonic() - started
  time.sleep(options.warm_up)

  actor_logs = list((workdir / "logs").glob("actor_*.csv"))
  skip = {file: len(_rows(file)) for file in [log, *actor_logs]}
  before, sent_before = _usage(process.pid), _bytes_sent(process.pid)
  started_at = time.monotonic()
  time.sleep(options.seconds)
  if process.poll() is not None:
    raise RuntimeError("The program ended.")
  after, sent_after = _usage(process.pid), _bytes_sent(process.pid)
  seconds = time.monotonic() - started_at
  # The first row began before the measurement did.
  rows = _rows(log)[skip[log] + 1 :]
  actors = [
    row
    for file in actor_logs
    for row in _rows(file)[skip[file] + 1 :]
  ]
  if not rows or not actors:
    raise RuntimeError("There were no updates; raise --seconds.")

  def mean(table: list[dict[str, float]], name: str) -> float:
    return statistics.fmean(row[name] for row in table)

  # Rows last about as long as each other, but not quite.
  rates = [row["environment_steps_per_second"] for row in rows]
  steps = [
    row["environment_steps"] - previous["environment_steps"]
    for previous, row in zip(_rows(log)[skip[log] :], rows, strict=False)
  ]
  duration = sum(a / b for a, b in zip(steps, rates, strict=True))
  rate = sum(steps) / duration
  return {
    "steps_per_second": rate,
    "bytes_sent_per_step": (sent_after - sent_before) / seconds / rate,
    "seconds_to_first_update": first_update,
    "policy_age": mean(rows, "policy_age_mean"),
    "queue_fill": mean(rows, "queue_fill"),
    "learner_waits": mean(rows, "share_waiting_for_data"),
    **{
      name: mean(actors, name)
      for name in (
        "share_environment",
        "share_inference",
        "share_writing",
        "share_blocked_by_queue",
        "share_waiting_for_learner",
      )
    },
    "cpu": {
      kind: (usage.cpu_seconds - before[kind].cpu_seconds) / seconds
      for kind, usage in after.items()
    },
    "megabytes": {
      kind: usage.memory_bytes / 1e6 for kind, usage in after.items()
    },
  }


def _rows(path: pathlib.Path) -> list[dict[str, float]]:
  """Returns the rows of a log; none if it is not there yet."""
  return logs.read(path).to_dict("records")


class _Usage(NamedTuple):
  """What the processes of a kind of node have used, all together.

  Attributes:
    cpu_seconds: of processor time so far.
    memory_bytes: now; of pages that processes share each has its part.
  """

  cpu_seconds: float = 0.0
  memory_bytes: float = 0.0


def _usage(pid: int) -> dict[str, _Usage]:
  """Returns what a program has used, by kind of node."""
  kinds: dict[str, _Usage] = collections.defaultdict(_Usage)
  launcher = psutil.Process(pid)
  for process in [launcher, *launcher.children(recursive=True)]:
    try:
      times = process.cpu_times()
      memory = process.memory_full_info().pss
      kind = "launcher" if process.pid == pid else _kind(process)
    except psutil.NoSuchProcess:
      continue
    before = kinds[kind]
    kinds[kind] = _Usage(
      before.cpu_seconds + times.user + times.system,
      before.memory_bytes + memory,
    )
  return kinds


def _bytes_sent(pid: int) -> int:
  """Returns what has gone over loopback in the network of a process."""
  # After the name: eight numbers of what came in, the first of what went out.
  text = pathlib.Path(f"/proc/{pid}/net/dev").read_text()
  return int(text.partition("lo:")[2].split()[8])


def _kind(process: psutil.Process) -> str:
  """Returns "actor" of the node actor/3."""
  name = process.environ().get(node_process.NODE_NAME, process.name())
  return name.partition("/")[0]


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `run` gives."""

  def share(name: str):
    return lambda row: f"{row[name]:.0%}"

  def cpu(row: Mapping[str, Any]) -> str:
    kinds = sorted(row["cpu"].items(), key=lambda item: -item[1])
    return ", ".join(
      f"{kind} {value:.2f}" for kind, value in kinds if value >= 0.005
    )

  return measuring.table(result["rows"], {
    "run": lambda row: (
      f"{row['case']}, `{row['agent']}`, {row['launch']} ×"
      f" {row['num_actors']}"
    ),
    "steps/s": lambda row: f"{row['steps_per_second']:,.0f}",
    "efficiency": lambda row: f"{row['efficiency']:.2f}",
    "alone, µs CPU a step: environment, inference, learner": lambda row: (
      f"{row['environment_cpu_microseconds']:.1f},"
      f" {row['inference_cpu_microseconds']:.1f},"
      f" {row['learner_cpu_microseconds']:.1f}"
    ),
    "learner alone, steps/s": lambda row: (
      f"{row['learner_alone_steps_per_second']:,.0f}"
    ),
    "learner waits": share("learner_waits"),
    "actor waits: queue, learner": lambda row: (
      f"{row['share_blocked_by_queue']:.0%},"
      f" {row['share_waiting_for_learner']:.0%}"
    ),
    "queue fill": share("queue_fill"),
    "sent, bytes a step": lambda row: f"{row['bytes_sent_per_step']:,.0f}",
    "policy age": lambda row: f"{row['policy_age']:.2f}",
    "cores used": cpu,
    "memory, GB": lambda row: f"{sum(row['megabytes'].values()) / 1e3:.1f}",
    "first update, s": lambda row: f"{row['seconds_to_first_update']:.0f}",
  })


def plot(result: dict[str, Any]) -> figure.Figure:
  """Draws how cost grows with the number of actors."""
  return measuring.lines(
    result["rows"],
    "num_actors",
    lambda row: f"{row['case']}, {row['agent']}, {row['launch']}",
    {
      "steps/s": lambda row: row["steps_per_second"],
      "memory, GB": lambda row: sum(row["megabytes"].values()) / 1e3,
      "policy age, updates": lambda row: row["policy_age"],
      "cores of the variable server": lambda row: row["cpu"].get(
        "variables", 0.0
      ),
      "first update, s": lambda row: row["seconds_to_first_update"],
    },
  )
