"""Speed of the whole program in its steady state, and its use of the machine.

Starts programs.train, waits until it has warmed up, and measures its rate.
Efficiency = measured steps/s ÷ (cores ÷ CPU-seconds per step), where
CPU-seconds per step is the sum of environment, inference and learner, each
measured alone.
"""

import argparse
import collections
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any
from unittest import mock

import pandas as pd
import psutil

import acme_stac
from acme_stac.evaluation import logs
from programs.benchmark import actor, cases, measuring, updates
from programs.launch import processes

_PARTS = ("environment", "inference", "learner")
_ACTOR_SHARES = (
  "share_environment", "share_inference", "share_writing",
  "share_blocked_by_queue", "share_waiting_for_learner",
)


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
  for case, agent in itertools.product(options.cases, options.agents):
    print(f"{case}, {agent}: each part alone", file=sys.stderr)
    alone = _costs_alone(case, agent)
    for launch in options.launch:
      for num_actors in options.num_actors if launch != "serial" else [1]:
        row: dict[str, Any] = {
          "case": case,
          "agent": agent,
          "launch": launch,
          "num_actors": num_actors,
        }
        print(", ".join(map(str, row.values())), file=sys.stderr)
        try:
          row |= _measure(case, agent, launch, num_actors, options)
          row |= alone
          row["efficiency"] = (
            row["steps_per_second"] / alone["possible_steps_per_second"]
          )
        except RuntimeError as error:
          row["error"] = str(error)
        rows.append(row)
  return {"rows": rows}


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of the result of `run`."""

  def cores(row: measuring.Row) -> str:
    kinds = sorted(row["cpu"].items(), key=lambda item: -item[1])
    return ", ".join(
      f"{kind} {value:.2f}" for kind, value in kinds if value >= 0.005
    )

  return measuring.table(result["rows"], {
    "run": "{case}, `{agent}`, {launch} × {num_actors}",
    "steps/s": "{steps_per_second:,.0f}",
    "efficiency": "{efficiency:.2f}",
    "alone, µs CPU a step: environment, inference, learner": ", ".join(
      f"{{{part}_cpu_microseconds:.1f}}" for part in _PARTS
    ),
    "learner alone, steps/s": "{learner_alone_steps_per_second:,.0f}",
    "learner waits": "{learner_waits:.0%}",
    "actor waits: queue, learner": (
      "{share_blocked_by_queue:.0%}, {share_waiting_for_learner:.0%}"
    ),
    "queue fill": "{queue_fill:.0%}",
    "sent, bytes a step": "{bytes_sent_per_step:,.0f}",
    "policy age": "{policy_age:.2f}",
    "cores used": cores,
    "memory, GB": lambda row: f"{sum(row['megabytes'].values()) / 1e3:.1f}",
    "first update, s": "{seconds_to_first_update:.0f}",
  })


def _costs_alone(case: str, agent: str) -> dict[str, float]:
  """Returns what an environment step (frame) costs each part, alone.

  The learner also by the clock: its update may not keep every core busy.
  """
  acting = _apart(processes.acting_environment(), _acting_costs, case, agent)
  update = _apart(processes.learning_environment(), _update_cost, case, agent)
  costs = {**acting, "learner": update}
  seconds = sum(costs[part].cpu_seconds for part in _PARTS)
  return {
    **{
      f"{part}_cpu_microseconds": 1e6 * costs[part].cpu_seconds
      for part in _PARTS
    },
    "learner_alone_steps_per_second": 1 / update.seconds,
    "possible_steps_per_second": len(os.sched_getaffinity(0)) / seconds,
  }


def _apart(
  environment: Mapping[str, str], call: Callable[..., Any], *arguments: str
) -> Any:
  """Returns the result of a call in a process with a node's environment."""
  spawn = multiprocessing.get_context("spawn")
  with (
    mock.patch.dict(os.environ, environment),
    futures.ProcessPoolExecutor(1, spawn) as pool,
  ):
    return pool.submit(call, *arguments).result()


def _acting_costs(case: str, agent: str) -> dict[str, measuring.Cost]:
  return actor.measure(cases.make_experiment(case, agent), seconds=1.0)


def _update_cost(case: str, agent: str) -> measuring.Cost:
  """Returns the cost of learning from one environment step."""
  experiment = cases.make_experiment(case, agent)
  config = experiment.config
  update = updates.MeasuredUpdate(experiment.environment_spec, config)
  cost = measuring.steady_cost(lambda: update.time(1), 5.0)
  return cost.per(config.steps_per_update)


def _measure(
  case: str, agent: str, launch: str, num_actors: int, options
) -> dict[str, Any]:
  """Returns the figures of a run in its steady state.

  Raises:
    RuntimeError: if it ends, or updates too rarely.
  """
  with tempfile.TemporaryDirectory() as name:
    workdir = pathlib.Path(name) / "run"
    command = [
      sys.executable, "-m", "programs.train", *cases.flags(case, agent),
      f"--launch={launch}", f"--num_actors={num_actors}",
      "--config.num_environment_steps=2000000000", f"--workdir={workdir}",
    ]
    with measuring.running(command, pathlib.Path(name)) as program:
      return _observe(program, workdir, options)


def _observe(
  program: measuring.Program, workdir: pathlib.Path, options
) -> dict[str, Any]:
  log = workdir / "logs" / "learner.csv"
  program.wait_for(lambda: len(logs.read(log)))
  first_update = time.monotonic() - program.started
  time.sleep(options.warm_up)

  files = [log, *log.parent.glob("actor_*.csv")]
  skip = {file: len(logs.read(file)) for file in files}
  before, sent = _usage(program.pid), _bytes_sent(program.pid)
  started = time.monotonic()
  time.sleep(options.seconds)
  program.check()
  after = _usage(program.pid)
  sent = _bytes_sent(program.pid) - sent
  seconds = time.monotonic() - started

  # The first row began before the measurement did.
  learning, *acting = (
    logs.read(file).iloc[skip[file] + 1 :] for file in files
  )
  if learning.empty or all(table.empty for table in acting):
    raise RuntimeError("There were no updates; raise --seconds.")
  actors = pd.concat(acting)
  # Rows last about as long as each other, but not quite.
  steps = logs.read(log)["environment_steps"].diff()[learning.index]
  rate = float(
    steps.sum() / (steps / learning["environment_steps_per_second"]).sum()
  )
  return {
    "steps_per_second": rate,
    "bytes_sent_per_step": sent / seconds / rate,
    "seconds_to_first_update": first_update,
    "policy_age": learning["policy_age_mean"].mean(),
    "queue_fill": learning["queue_fill"].mean(),
    "learner_waits": learning["share_waiting_for_data"].mean(),
    **actors[list(_ACTOR_SHARES)].mean().to_dict(),
    "cpu": {
      kind: (usage.cpu_seconds - before[kind].cpu_seconds) / seconds
      for kind, usage in after.items()
    },
    "megabytes": {kind: usage.megabytes for kind, usage in after.items()},
  }


@dataclasses.dataclass
class _Usage:
  """The use of the machine by all processes of a kind of node.

  Attributes:
    cpu_seconds: processor time so far.
    megabytes: memory now; shared pages are divided among their processes.
  """

  cpu_seconds: float = 0.0
  megabytes: float = 0.0


def _usage(pid: int) -> dict[str, _Usage]:
  """Returns the use of a run by kind of node, "actor" for actor/3."""
  kinds: dict[str, _Usage] = collections.defaultdict(_Usage)
  for name, process in measuring.processes_of(pid):
    try:
      times = process.cpu_times()
      memory = process.memory_full_info().pss
    except psutil.NoSuchProcess:
      continue
    usage = kinds[name.partition("/")[0]]
    usage.cpu_seconds += times.user + times.system
    usage.megabytes += memory / 1e6
  return kinds


def _bytes_sent(pid: int) -> int:
  """Returns the bytes sent over the loopback interface of a process."""
  # After the name: eight numbers of what came in, the first of what went out.
  text = pathlib.Path(f"/proc/{pid}/net/dev").read_text()
  return int(text.partition("lo:")[2].split()[8])
