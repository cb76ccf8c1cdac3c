"""The programs that are compared, and how to read their progress."""

import json
import math
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

from acme_stac.evaluation import logs
from programs.benchmark import cases

_HERE = pathlib.Path(__file__).parent

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


class Contender(NamedTuple):
  """A program to measure.

  Attributes:
    command: from a directory to the command line.
    read: from that directory to steps and return so far, None before the first.
  """

  command: Callable[[pathlib.Path], list[str]]
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
  contenders = {name: _ours(case, name) for name in OURS}
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
    contenders[name] = _peer(python, script, arguments)
  return contenders


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
