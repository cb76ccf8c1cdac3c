r"""Trains an agent.

  python -m programs.train --config=configs/small.py:gymnasium:CartPole-v1 \
    --config.agent=stacx --num_actors=1 --workdir=runs/cartpole

The same --workdir resumes a run that was stopped. See docs/training.md.
"""

import os
import signal
import sys
import types
from typing import Any

from programs.launch import ending, modes
from programs.run import flags as run_flags
from programs.run import machine
from programs.run.errors import UserError, report_error


def _session() -> types.ModuleType:
  """Loads what describes and launches runs.

  Only when the process is ready for it: JAX and NumPy start threads, with which
  a process cannot leave the network any more, and read environment variables
  that `main` sets.
  """
  from programs.launch import session

  return session


def _mode(argv: list[str]) -> modes.Mode:
  """Returns how the run is launched, before flags are parsed."""
  name = run_flags.value(argv, "launch") or modes.DEFAULT
  # Parsing refuses what is not in the table.
  return modes.MODES.get(name, modes.MODES[modes.DEFAULT])


def isolate(argv: list[str]) -> bool:
  """Leaves the network where the run needs none; returns whether it did.

  Must come before anything starts a thread.
  """
  if _mode(argv).has_hosts:
    return False
  isolated = (run_flags.value(argv, "isolate_network") or "").lower()
  off = {"--noisolate_network", "-noisolate_network"} & set(argv)
  if off or isolated in ("false", "f", "0"):
    return False
  if machine.isolate_network():
    return True
  print(
    "The kernel does not let this run have a network of its own, so its"
    " ports can be reached from outside: docs/operations.md, 'Who may come"
    " in'.",
    file=sys.stderr,
  )
  return False


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  isolated = isolate(argv)
  # An environment may start some, even while it is only checked here.
  ending.leave_no_children()
  machine.use_compilation_cache()
  # Of all processes only the learner's takes the accelerator.
  learner_environment = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")}
  if _mode(argv).has_processes:
    os.environ["JAX_PLATFORMS"] = "cpu"
  machine.check()
  parsed = run_flags.parse(argv)
  session = _session()
  run = session.describe(parsed)
  online = os.environ.get("WANDB_MODE", "online") == "online"
  if run.experiment.wandb_project and isolated and online:
    raise UserError(
      "wandb_project is set, but this run leaves the network, so Weights &"
      " Biases cannot be reached. Add --noisolate_network, or set"
      " WANDB_MODE=offline and 'wandb sync' later."
    )
  return session.launch(run, parsed, learner_environment)


def check(argv: list[str]):
  """Checks the arguments of a run as the command does, and starts nothing.

  Raises:
    UserError: if anything about them cannot work.
  """
  machine.check()
  parsed = run_flags.parse(argv)
  _session().experiment_lib.make_experiment(
    parsed.config, parsed.num_actors, parsed.workdir
  )


def _interrupt(number: int, unused_frame: Any):
  raise KeyboardInterrupt(number)


if __name__ == "__main__":
  ending.drop_lost_output()
  signal.signal(signal.SIGTERM, _interrupt)
  try:
    sys.exit(main(sys.argv))
  except KeyboardInterrupt as interrupt:
    ending.say("\nStopped while nothing was running.")
    (signal_number,) = interrupt.args or (signal.SIGINT,)
    sys.exit(128 + signal_number)
  except UserError as error:
    sys.exit(report_error(error))
