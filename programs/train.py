r"""Trains an agent.

  python -m programs.train --config=configs/small.py:gymnasium:CartPole-v1 \
    --config.agent=stacx --num_actors=1 --workdir=runs/cartpole

The same --workdir resumes a run that was stopped. See docs/training.md.
"""

import csv
import os
import signal
import sys
import typing
from typing import Any, BinaryIO

from acme_stac.evaluation.text import counted, printable
from programs.launch import ending
from programs.run import flags as run_flags
from programs.run import machine

_MAX_ACTORS = 1000


class Run(typing.NamedTuple):
  """A run that can be started.

  Attributes:
    experiment: its description.
    step: updates that are already done.
    changes: what has changed since.
    cluster: its hosts, if it has several.
    lock: open file that holds the lock of the work directory; None on a host of
      actors.
  """

  experiment: Any
  step: int
  changes: list[str]
  cluster: Any
  lock: BinaryIO | None


def _isolate(argv: list[str]) -> bool:
  """Leaves the network where the run needs none; before threads are started.

  Returns:
    Whether it did.
  """
  if run_flags.value(argv, "launch") == "hosts":
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
  isolated = _isolate(argv)
  # An environment may start some, also when it is only checked here.
  ending.leave_no_children()
  machine.use_compilation_cache()
  machine.check()
  # Of all processes the learner alone may see the accelerator, and this one
  # only describes the run, unless the learner is a thread of it.
  learner_environment = {
    name: os.environ[name]
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")
    if name in os.environ
  }
  parsed = run_flags.parse(argv)
  if parsed.launch in ("local_mp", "hosts"):
    os.environ["JAX_PLATFORMS"] = "cpu"
  run = describe(parsed)
  online = os.environ.get("WANDB_MODE", "online") == "online"
  if run.experiment.wandb_project and isolated and online:
    raise machine.UserError(
      "wandb_project is set, but this run leaves the network, so Weights &"
      " Biases cannot be reached. Add --noisolate_network, or set"
      " WANDB_MODE=offline and 'wandb sync' later."
    )
  return _run(run, parsed, learner_environment)


def describe(parsed: Any) -> Run:
  """Describes the run of parsed flags and prepares its work directory.

  Nothing is started. All that a user can get wrong is found by now. The work
  directory's lock is taken before anything in it is read or written, so that
  what is said of it stays true.

  Raises:
    UserError: if there is such a thing.
  """
  from programs.launch import cluster as cluster_lib
  from programs.run import experiment as experiment_lib
  from programs.run import workdir as workdir_lib

  cluster: cluster_lib.Cluster | None = None
  num_actors = parsed.num_actors
  if parsed.launch == "hosts":
    cluster = cluster_lib.read(parsed.cluster, parsed.host, num_actors)
    num_actors = cluster.num_actors
  elif num_actors > _MAX_ACTORS:
    raise machine.UserError(
      f"num_actors must be at most {_MAX_ACTORS} on one host, got {num_actors}."
      " --launch=hosts takes more hosts: docs/operations.md."
    )
  experiment = experiment_lib.make_experiment(
    parsed.config, num_actors, parsed.workdir
  )
  if cluster is not None:
    last = cluster.ports(experiment.num_queues)[-1]
    if last >= 2**16:
      raise machine.UserError(
        f"The learner's host would listen on ports up to {last}, but 65535 is"
        " the last one. Give it a lower port, or the run fewer queues."
      )
  workdir = experiment.workdir
  if cluster is not None and not cluster.is_learner_host:
    workdir_lib.make(workdir)
    return Run(experiment, 0, [], cluster, None)
  machine.make_directory(workdir, "--workdir")
  lock = machine.lock(workdir)
  try:
    step, changes = experiment_lib.prepare_workdir(experiment)
  except BaseException:
    lock.close()
    raise
  return Run(experiment, step, changes, cluster, lock)


def _run(run: Run, parsed, learner_environment) -> int:
  from acme_stac import checkpointing
  from programs.launch import launching
  from programs.launch.progress import Progress
  from programs.nodes.calls import SilentError
  from programs.nodes.nodes import HopelessError
  from programs.run import workdir as workdir_lib

  experiment, step, changes, cluster, lock = run
  config = experiment.config
  learns_here = cluster is None or cluster.is_learner_host
  print(
    f"{experiment.agent} on {printable(experiment.environment)}:"
    f" {counted(config.num_environment_steps, 'environment step')},"
    f" {counted(config.num_updates, 'update')},"
    f" {experiment.num_actors} × {experiment.environments_per_actor}"
    f" environments, in {printable(experiment.workdir)}"
  )
  if cluster is not None:
    print(f"This is {cluster.describe(experiment.num_queues)}.")
  if step:
    print(f"Resuming after {counted(step, 'update')}.")
    for change in changes:
      print(f"  changed: {printable(change)}")
  if step >= config.num_updates:
    print("This run is done. A larger --config.num_environment_steps goes on.")
    return 0
  files: tuple[int, ...] = ()
  if lock is not None:
    # The learner holds it too, should this process be killed.
    files = (lock.fileno(),)
    if cluster is not None:
      machine.check_ports(cluster.ports(experiment.num_queues))
  watch = workdir_lib.Watch(experiment.workdir)
  progress = Progress()
  interrupted = False
  try:
    if parsed.launch == "serial":
      launching.run_serial(experiment, progress)
    elif parsed.launch == "local_mt":
      launching.run_threads(experiment, progress)
    elif parsed.launch == "colocated":
      launching.run_colocated(experiment, progress)
    else:
      from programs.launch import processes

      processes.run_processes(
        experiment,
        progress,
        learner_environment,
        parsed.threads_per_actor,
        parsed.restart,
        cluster,
        parsed.terminal,
        files,
      )
    progress.close()
    kept = "Logs, checkpoints and plots" if learns_here else "Logs of actors"
    print(f"Done. {kept} are in {printable(experiment.workdir)}")
    code = 0
  except ending.Interrupted as request:
    interrupted = True
    progress.close()
    saved = ""
    if learns_here:
      saved = (
        "; the checkpoint is saved"
        if checkpointing.list_checkpoints(experiment.checkpoints)
        else " before anything was learned"
      )
    print(f"Stopped{saved}. The same command goes on.")
    # An engine that tells a host to go and takes 0 for done would not start it
    # again.
    told_to_go = cluster is not None and signal.SIGTERM in request.args
    code = 128 + signal.SIGTERM if told_to_go else 0
  except (ending.NodeDiedError, SilentError, HopelessError) as error:
    progress.close()
    # A learner in a process of its own says it in a log that went as well.
    if not watch.is_intact():
      ending.say(
        f"{printable(experiment.workdir)}, or a part of it, was removed during"
        " training."
      )
    ending.say(f"{error}\nThe same command resumes.")
    code = 1
  # Whoever stops a run wants it to end now, and its logs are kept.
  if learns_here and not interrupted:
    _plot(experiment)
  return code


def _plot(experiment):
  from acme_stac.evaluation import summary
  from acme_stac.evaluation.figures import run as plots

  try:
    result = summary.summarise_run(experiment.workdir)
    if skipped := result.get("skipped_updates", 0):
      print(
        f"Warning: {counted(skipped, 'update')} skipped, for numbers that are"
        " not finite. Look at the losses and norms in logs/learner.csv."
      )
    if dropped := result.get("dropped_trajectories", 0):
      print(
        f"Warning: dropped {dropped:,} of the trajectories, for numbers that"
        " are not finite. logs/nodes/learner.log says what in them."
      )
    for path in plots.plot_run(experiment.workdir):
      print(f"  {printable(path)}")
  # Logs may be damaged, or another program's.
  except (OSError, ValueError, LookupError, csv.Error) as error:
    print(
      f"The plots could not be written: {printable(error)}", file=sys.stderr
    )


def check(argv: list[str]):
  """Checks the arguments of a run as the command does, and starts nothing.

  Raises:
    UserError: if anything about them cannot work.
  """
  machine.check()
  parsed = run_flags.parse(argv)
  from programs.run import experiment as experiment_lib

  experiment_lib.make_experiment(
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
  except machine.UserError as error:
    sys.exit(machine.report_error(error))
