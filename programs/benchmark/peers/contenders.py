"""The programs that are compared: how to run them and read their progress."""

import json
import math
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

from acme_stac.evaluation import logs
from programs.benchmark import cases, measuring

_HERE = pathlib.Path(__file__).parent
_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 120.0

# This project's agents.
OURS = ("impala", "stacx")
# The others by case: name -> script and its arguments. Sample Factory runs by
# its documented command for Gymnasium, and batched as in its examples.
PEERS: dict[str, dict[str, tuple[str, list[str]]]] = {
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
  """A contender's progress.

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
    command: the command line; followed by a flag with the path of a log.
    flag: that flag, for example "--log".
    read: returns the steps and the return so far from the log; None before the
      first report.
  """

  command: list[str]
  flag: str
  read: Callable[[pathlib.Path], tuple[int, float | None] | None]


def make(
  case: str, sample_factory: str | None, rllib: str | None
) -> dict[str, Contender]:
  """Returns the contenders of a case by name.

  Args:
    case: a key of `PEERS`.
    sample_factory: the interpreter that has Sample Factory; None leaves it out.
    rllib: the interpreter that has RLlib; None leaves it out.

  Raises:
    ValueError: if there is no such interpreter.
  """
  contenders = {
    agent: Contender(
      [
        sys.executable, "-m", "programs.train", *cases.flags(case, agent),
        "--num_actors=1", "--config.environments_per_actor=32",
        "--config.num_environment_steps=2000000000",
        "--config.stac.head_sizes=()", "--config.stac.lstm_size=0",
      ],
      "--workdir",
      _read_workdir,
    )
    for agent in OURS
  }
  interpreters = {
    "acme": sys.executable,
    "sample_factory": sample_factory,
    "sample_factory_batched": sample_factory,
    "rllib": rllib,
  }
  for name, (script, arguments) in PEERS[case].items():
    python = interpreters[name]
    if python is None:
      continue
    if shutil.which(python) is None:
      raise ValueError(f"There is no interpreter {python!r}.")
    contenders[name] = Contender(
      [python, str(_HERE / script), *arguments], "--log", _read_lines
    )
  return contenders


def run(contender: Contender, warm_up: float, seconds: float) -> list[Point]:
  """Returns a contender's progress from its first report on.

  Args:
    contender: the program to run.
    warm_up: seconds after the first report that are not counted.
    seconds: of the measurement; it goes on until there are two reports.

  Raises:
    RuntimeError: if it ends by itself, does not start, or stops reporting.
  """
  with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    log = directory / "log"
    command = [*contender.command, f"{contender.flag}={log}"]
    points: list[Point] = []
    with measuring.running(command, directory) as program:
      program.wait_for(lambda: contender.read(log))
      started = time.monotonic()
      while (now := time.monotonic() - started) < warm_up + seconds or len(
        reports(points, warm_up)
      ) < 2:
        program.check()
        if now > warm_up + seconds + _PATIENCE_SECONDS:
          raise RuntimeError("There are too few reports; raise --seconds.")
        state = contender.read(log)
        if state is not None:
          points.append(Point(now, *state))
        time.sleep(_POLL_SECONDS)
  return points


def reports(points: list[Point], warm_up: float) -> list[Point]:
  """Returns the points after the warm-up at which the steps had changed."""
  return [
    point
    for previous, point in zip(points, points[1:], strict=False)
    if point.steps != previous.steps and point.seconds >= warm_up
  ]


def _read_workdir(workdir: pathlib.Path) -> tuple[int, float | None] | None:
  """Reads the progress of one of this project's runs."""
  log = logs.read_learner(workdir)
  if log.empty:
    return None
  last = log.iloc[-1]
  mean_return = float(last["episode_return"])
  return int(last["environment_steps"]), (
    None if math.isnan(mean_return) else mean_return
  )


def _read_lines(log: pathlib.Path) -> tuple[int, float | None] | None:
  """Reads the progress of a peer from its lines of JSON."""
  if not log.exists():
    return None
  # The last line may be half written.
  *lines, _ = log.read_text().split("\n")
  if not lines:
    return None
  last = json.loads(lines[-1])
  return last["steps"], last["return"]
