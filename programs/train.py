r"""Trains an agent.

  python -m programs.train --config=configs/small.py:gymnasium:CartPole-v1 \
    --config.agent=stacx --num_actors=1 --workdir=runs/cartpole

The same --workdir resumes a run that was stopped. See docs/training.md.
"""

import argparse
import os
import sys
import types

from absl import flags

from programs import commands
from programs.launch import ending, modes
from programs.launch import flags as run_flags
from programs.run import machine
from programs.run.errors import UserError


def _session() -> types.ModuleType:
  """Imports the session, once the process is ready for JAX and NumPy.

  They read environment variables that `main` sets, and start threads, after
  which a process cannot leave the network.
  """
  from programs.launch import session

  return session


def _isolate(parsed: argparse.Namespace) -> bool:
  """Leaves the network if the run needs none; returns whether it did.

  Must be called before anything starts a thread.
  """
  if modes.MODES[parsed.launch].has_hosts or not parsed.isolate_network:
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
  parsed = run_flags.parse_flags(argv, __doc__)
  mode = modes.MODES[parsed.launch]
  isolated = _isolate(parsed)
  # An environment may start processes, even while it is only checked here.
  ending.leave_no_children()
  machine.use_compilation_cache()
  # Of all processes only the learner's takes the accelerator.
  learner_environment = {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "")}
  if mode.has_processes:
    os.environ["JAX_PLATFORMS"] = "cpu"
  machine.check(mode.is_distributed)
  if not (machine.has_distributed_layer() or mode.is_on_device):
    print(
      "Launchpad and Reverb are not installed: learner and actors share one"
      f" process (--launch={parsed.launch})."
    )
  # Launchpad reads flags of its own.
  flags.FLAGS(["programs.train"])
  parsed.config = run_flags.load_config(parsed)
  session = _session()
  run = session.describe(parsed, learner_environment)
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
  parsed = run_flags.parse(argv)
  machine.check(modes.MODES[parsed.launch].is_distributed)
  _session().members.make_experiments(parsed, parsed.num_actors)


if __name__ == "__main__":
  ending.drop_lost_output()
  commands.run(main)
