"""Trains an agent.

  python -m programs.train --config=configs/small.py:gymnasium:CartPole-v1 \
    --config.agent=stacx --num_actors=1 --workdir=runs/cartpole

The same --workdir resumes a run that was stopped. See docs/training.md.
"""

import os
import pathlib
import runpy
import signal
import sys

from programs import machine

_CONFIG = "configs/small.py"


def _define_flags():
  from absl import flags
  from ml_collections import config_flags

  config_flags.DEFINE_config_file(
    "config", _CONFIG, "Configuration file, as path:argument."
  )
  flags.DEFINE_integer(
    "num_actors", 1,
    "Actor processes or threads; of each host of actors with --launch=hosts.",
  )
  flags.DEFINE_integer(
    "threads_per_actor",
    1,
    "Threads for inference in each actor process and in the evaluator.",
    lower_bound=1,
  )
  flags.DEFINE_string("workdir", None, "Directory of the run.")
  flags.DEFINE_enum(
    "launch",
    "local_mp",
    ["serial", "local_mt", "local_mp", "colocated", "hosts"],
    "One thread (repeatable); Launchpad's nodes as threads or processes; actors"
    " and learner as threads that share the devices of this host; or this"
    " host's share of a run on several hosts.",
  )
  flags.DEFINE_string(
    "cluster", None,
    "With --launch=hosts: file that says which hosts there are. CLUSTER_SPEC in"
    " the environment if it is left out.",
  )
  flags.DEFINE_string(
    "host", None,
    "With --launch=hosts: which of them this is, where its addresses and name"
    " do not tell.",
  )
  flags.DEFINE_enum(
    "restart", "workers", ["none", "workers", "all"],
    "Which processes are started again when they die: none; all that the run"
    " loses nothing by (actors, evaluator, counter, variable server); or the"
    " learner, from its newest checkpoint, and the queue too.",
  )
  flags.DEFINE_boolean(
    "isolate_network", True,
    "Run in a network of its own, out of reach from outside, where the kernel"
    " allows that. Off if environments need a network.",
  )
  flags.DEFINE_string(
    "terminal",
    None,
    "Show every node in a terminal of Launchpad's own, such as tmux_session.",
  )
  return flags.FLAGS


def _parse(argv: list[str]):
  """Parses flags; raises UserError with one readable line."""
  from absl import flags

  parsed = _define_flags()
  if {"--help", "-h", "--helpfull"} & set(argv[1:]):
    print(__doc__)
    print(parsed.module_help(sys.modules["__main__"]) or "")
    print(parsed.main_module_help())
    raise SystemExit(0)
  try:
    rest = parsed(argv)
    # A file that cannot be loaded is noticed when it is first asked.
    assert parsed.config.agent
  except flags.Error as error:
    # What a configuration file raised comes with its whole traceback.
    last = str(error).strip().splitlines()[-1]
    raised = "ValueError: "
    if last.startswith(raised):
      raise machine.UserError(f"--config: {last[len(raised):]}") from error
    raise machine.UserError(str(error)) from error
  except OSError as error:
    files = pathlib.Path("configs").glob("[a-z]*.py")
    known = sorted(str(path) for path in files)
    raise machine.UserError(
      f"--config: {error}\nConfiguration files: {', '.join(known)}"
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    message: object = error
    while isinstance(message, Exception) and message.args:
      message = message.args[0]
    message = _unknown_field(argv) or message
    raise machine.UserError(
      f"--config: {message}\ndocs/training.md has the fields of a run,"
      " docs/environments.md the options of every environment."
    ) from error
  if len(rest) > 1:
    raise machine.UserError(f"Unknown arguments: {' '.join(rest[1:])}")
  if not parsed.workdir:
    raise machine.UserError("Say where the run is kept: --workdir=runs/NAME")
  for name in ("cluster", "host"):
    if parsed[name].value is not None and parsed.launch != "hosts":
      raise machine.UserError(f"--{name} goes with --launch=hosts.")
  return parsed


def _unknown_field(argv: list[str]) -> str | None:
  """Returns what to say of a --config.FIELD that the file does not have."""
  from acme_stac.config import unknown

  file = _CONFIG
  for argument in argv:
    if argument.startswith("--config="):
      file = argument.partition("=")[2]
  path, _, name = file.partition(":")
  try:
    config = runpy.run_path(path)["get_config"](*[name] if name else [])
  except ValueError as error:
    return str(error)
  for argument in argv:
    if not argument.startswith("--config."):
      continue
    node = config
    fields = argument.partition("=")[0].split(".")[1:]
    for number, name in enumerate(fields):
      if not hasattr(node, "keys"):
        break
      if name not in node:
        where = ".".join(["--config", *fields[:number]])
        return unknown(f"field of {where}", name, node)
      node = node[name]
  return None


def _isolate(argv: list[str]):
  """Leaves the network where the run needs none; before threads are started."""
  launch = [a for a in argv if a.startswith(("--launch", "-launch"))]
  if "hosts" in "".join(launch) or any("noisolate_network" in a for a in argv):
    return
  if not machine.isolate_network():
    print(
      "The kernel does not let this run have a network of its own, so its"
      " ports can be reached from outside: docs/operations.md, 'Who may come"
      " in'.",
      file=sys.stderr,
    )


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  _isolate(argv)
  machine.use_compilation_cache()
  machine.check()
  # Of all processes the learner alone may see the accelerator, and this one
  # only describes the run, unless the learner is a thread of it.
  learner_environment = {
    name: os.environ[name]
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")
    if name in os.environ
  }
  parsed = _parse(argv)
  if parsed.launch in ("local_mp", "hosts"):
    os.environ["JAX_PLATFORMS"] = "cpu"

  from programs import cluster as cluster_lib
  from programs import experiment as experiment_lib

  cluster: cluster_lib.Cluster | None = None
  num_actors = parsed.num_actors
  if parsed.launch == "hosts":
    cluster = cluster_lib.read(parsed.cluster, parsed.host, num_actors)
    num_actors = cluster.num_actors
  experiment = experiment_lib.make_experiment(
    parsed.config, num_actors, parsed.workdir
  )
  step = 0
  changes: list[str] = []
  if cluster is None or cluster.is_learner_host:
    step, changes = experiment_lib.prepare_workdir(experiment)
  else:
    experiment_lib.make_workdir(experiment)
  return _run(experiment, step, changes, parsed, cluster, learner_environment)


def _run(
  experiment, step, changes, parsed, cluster, learner_environment
) -> int:
  from programs import ending, launching
  from programs.calls import SilentError
  from programs.nodes import HopelessError
  from programs.progress import Progress

  config = experiment.config
  learns_here = cluster is None or cluster.is_learner_host
  print(
    f"{experiment.agent} on {experiment.environment}:"
    f" {config.num_environment_steps:,} environment steps,"
    f" {config.num_updates:,} updates,"
    f" {experiment.num_actors} × {experiment.environments_per_actor}"
    f" environments, in {experiment.workdir}"
  )
  if cluster is not None:
    print(f"This is {cluster.describe()}.")
  if step:
    print(f"Resuming after {step:,} updates.")
    for change in changes:
      print(f"  changed: {change}")
  if step >= config.num_updates:
    print("This run is done. A larger --config.num_environment_steps goes on.")
    return 0
  progress = Progress()
  try:
    if parsed.launch == "serial":
      launching.run_serial(experiment, progress)
    elif parsed.launch == "local_mt":
      launching.run_threads(experiment, progress)
    elif parsed.launch == "colocated":
      launching.run_colocated(experiment, progress)
    else:
      from programs import processes

      processes.run_processes(
        experiment,
        progress,
        learner_environment,
        parsed.threads_per_actor,
        parsed.restart,
        cluster,
        parsed.terminal,
      )
    progress.close()
    kept = "Logs, checkpoints and plots" if learns_here else "Logs of actors"
    print(f"Done. {kept} are in {experiment.workdir}")
    code = 0
  except ending.Interrupted as interrupted:
    progress.close()
    saved = "; the checkpoint is saved" if learns_here else ""
    print(f"Stopped{saved}. The same command goes on.")
    # An engine that tells a host to go and takes 0 for done would not start it
    # again.
    told_to_go = cluster is not None and signal.SIGTERM in interrupted.args
    code = 128 + signal.SIGTERM if told_to_go else 0
  except (ending.NodeDiedError, SilentError, HopelessError) as error:
    progress.close()
    print(f"{error}\nThe same command resumes.", file=sys.stderr)
    code = 1
  if learns_here:
    _plot(experiment)
  return code


def _plot(experiment):
  from acme_stac.evaluation import plots, summary

  result = summary.summarise_run(experiment.workdir)
  if skipped := result.get("skipped_updates", 0):
    print(
      f"Warning: {skipped:,} updates had numbers that are not finite and were"
      " skipped. Look at the losses and norms in logs/learner.csv."
    )
  if dropped := result.get("dropped_trajectories", 0):
    print(
      f"Warning: {dropped:,} trajectories had numbers that are not finite and"
      " were dropped. logs/nodes/learner.log says what in them."
    )
  for path in plots.plot_run(experiment.workdir):
    print(f"  {path}")


def check(argv: list[str]):
  """Checks the arguments of a run as the command does, and starts nothing.

  Raises:
    UserError: if anything about them cannot work.
  """
  machine.check()
  parsed = _parse(argv)
  from programs import experiment as experiment_lib

  experiment_lib.make_experiment(
    parsed.config, parsed.num_actors, parsed.workdir
  )


if __name__ == "__main__":
  try:
    sys.exit(main(sys.argv))
  except machine.UserError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
