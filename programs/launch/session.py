"""Describes, launches and reports on the run of a command."""

import csv
import os
import pathlib
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from acme_stac import accelerator, checkpointing
from acme_stac.evaluation import figures, summary
from acme_stac.evaluation.text import counted, printable
from programs.launch import cluster as cluster_lib
from programs.launch import ending, members, modes
from programs.launch.progress import Progress
from programs.nodes.failures import HopelessError, SilentError
from programs.run import experiment as experiment_lib
from programs.run import machine, paths, resume
from programs.run import workdir as workdir_lib
from programs.run.errors import UserError

_MAX_ACTORS = 1000
# Runs side by side that get plots, which take about a second each.
_MAX_DRAWN = 16


class Run(NamedTuple):
  """A run that can be started.

  Attributes:
    workdir: the directory that --workdir names.
    experiments: descriptions of the runs; several only if one compiled program
      trains them side by side, in directories below `workdir`.
    step: updates that are already done.
    changes: settings that have changed since, as text.
    cluster: hosts of the run, if it has several.
    lock: open file that holds the lock of `workdir`; None on a host of actors.
    member_locks: those of the directories below it.
  """

  workdir: pathlib.Path
  experiments: tuple[experiment_lib.Experiment, ...]
  step: int
  changes: list[str]
  cluster: cluster_lib.Cluster | None
  lock: BinaryIO | None
  member_locks: tuple[BinaryIO, ...] = ()

  @property
  def experiment(self) -> experiment_lib.Experiment:
    """The run, or the first of several."""
    return self.experiments[0]

  @property
  def learns_here(self) -> bool:
    """Whether the learner is on this host."""
    return self.cluster is None or self.cluster.is_learner_host


def describe(
  parsed: Any, learner_environment: Mapping[str, str] = os.environ
) -> Run:
  """Describes the run of parsed flags and prepares its work directory.

  Starts nothing, but finds every error of the user's. Locks the work directory
  before it reads or writes anything there.

  Args:
    parsed: the flags.
    learner_environment: environment variables of the learner's process.

  Raises:
    UserError: if anything about the run cannot work.
  """
  cluster: cluster_lib.Cluster | None = None
  num_actors = parsed.num_actors
  mode = modes.MODES[parsed.launch]
  if mode.has_hosts:
    cluster = cluster_lib.read(parsed.cluster, parsed.host, num_actors)
    num_actors = cluster.num_actors
  elif num_actors > _MAX_ACTORS:
    raise UserError(
      f"num_actors must be at most {_MAX_ACTORS} on one host, got {num_actors}."
      " --launch=hosts takes more hosts: docs/operations.md."
    )
  if cluster is None or cluster.is_learner_host:
    _check_accelerator(learner_environment, apart=mode.has_processes)
  experiments = members.make_experiments(parsed, num_actors)
  workdir = pathlib.Path(parsed.workdir).expanduser().absolute()
  if cluster is not None and not cluster.is_learner_host:
    workdir_lib.make(workdir)
    described = resume.with_specs_of_run(experiments[0])
    return Run(workdir, (described,), 0, [], cluster, None)
  paths.make_directory(workdir, "--workdir")
  lock = workdir_lib.lock(workdir)
  try:
    members.check_place(workdir, experiments)
    if experiments[0].workdir != workdir:
      several = members.prepare(workdir, experiments)
      return Run(
        workdir, several.experiments, several.step, several.changes, None,
        lock, several.locks,
      )
    prepared = resume.prepare_workdir(experiments[0])
  except BaseException:
    lock.close()
    raise
  return Run(
    workdir, (prepared.experiment,), prepared.step, prepared.changes, cluster,
    lock,
  )


def _check_accelerator(learner_environment: Mapping[str, str], apart: bool):
  """Raises UserError if the learner's accelerator does not work.

  Prints a warning if this host has a GPU that JAX leaves unused.

  Args:
    learner_environment: as in `describe`.
    apart: check in another process, because this one must not take memory of
      the accelerator.
  """
  if not accelerator.is_expected(learner_environment.get("JAX_PLATFORMS", "")):
    return
  try:
    if apart:
      said = accelerator.check_apart(learner_environment)
    else:
      accelerator.check()
      said = accelerator.warning() or ""
  except accelerator.AcceleratorError as error:
    raise UserError(str(error)) from error
  if said:
    print(f"Warning: {said}", file=sys.stderr)


def launch(run: Run, parsed: Any, learner_environment: dict[str, str]) -> int:
  """Launches a run; returns the exit code of the command.

  Args:
    run: of `describe`.
    parsed: the flags.
    learner_environment: environment variables of the learner's process alone.

  Raises:
    UserError: if this host does not fit the others.
  """
  experiment = run.experiment
  _print_start(run)
  if run.step >= experiment.config.num_updates:
    print("This run is done. A larger --config.num_environment_steps goes on.")
    if run.learns_here:
      _report_all(run.experiments)  # It may have been stopped before that.
    return 0
  if run.cluster is not None and run.learns_here:
    machine.check_ports(run.cluster.ports(experiment.num_queues))
  watches = [workdir_lib.Watch(each.workdir) for each in run.experiments]
  progress = Progress()
  try:
    modes.run(parsed.launch, modes.Launch(
      run.experiments,
      progress,
      run.cluster,
      parsed.restart,
      parsed.threads_per_actor,
      learner_environment,
      # The learner holds the lock too, should this process be killed.
      (run.lock.fileno(),) if run.lock else (),
    ))
  except ending.Interrupted as request:
    progress.close()
    return _report_stop(run, request)
  except (ending.NodeDiedError, SilentError, HopelessError) as error:
    progress.close()
    ending.say(str(error))
    if all(watch.is_intact() for watch in watches):
      ending.say("The same command resumes.")
    code = 1
  else:
    progress.close()
    kept = (
      "Logs, checkpoints and plots" if run.learns_here else "Logs of actors"
    )
    print(f"Done. {kept} are in {printable(run.workdir)}")
    code = 0
  if run.learns_here:
    _report_all(run.experiments)
  return code


def _report_all(experiments: Sequence[experiment_lib.Experiment]):
  """Reports on runs side by side; on many of them, draws the first ones."""
  for number, experiment in enumerate(experiments):
    report(
      experiment,
      draws=number < _MAX_DRAWN,
      names_plots=len(experiments) == 1,
    )
  if len(experiments) > _MAX_DRAWN:
    print(
      f"Plots are of the first {_MAX_DRAWN} runs; programs.report draws all."
    )


def _print_start(run: Run):
  experiment = run.experiment
  config = experiment.config
  runs = len(run.experiments)
  print(
    f"{experiment.agent} on {printable(experiment.environment)}:"
    f" {f'{runs} runs of ' if runs > 1 else ''}"
    f"{counted(config.num_environment_steps, 'environment step')},"
    f" {counted(config.num_updates, 'update')},"
    f" {experiment.num_actors} × {experiment.environments_per_actor}"
    f" environments, in {printable(run.workdir)}"
  )
  if run.cluster is not None:
    print(f"This is {run.cluster.describe(experiment.num_queues)}.")
  if run.step:
    print(f"Resuming after {counted(run.step, 'update')}.")
  for change in run.changes:
    print(f"  changed: {printable(change)}")


def _report_stop(run: Run, request: ending.Interrupted) -> int:
  """Reports that a run was stopped; returns the exit code.

  Draws no plots: whoever stops a run wants it to end now.
  """
  saved = ""
  if run.learns_here:
    of = " of every run" if len(run.experiments) > 1 else ""
    saved = (
      f"; the checkpoint{of} is saved"
      if checkpointing.list_checkpoints(run.experiment.checkpoints)
      else " before anything was learned"
    )
  print(f"Stopped{saved}. The same command goes on.")
  # A cluster that moves a host takes 0 for done and would not restart it.
  told_to_go = run.cluster is not None and signal.SIGTERM in request.args
  return 128 + signal.SIGTERM if told_to_go else 0


def report(
  experiment: experiment_lib.Experiment,
  draws: bool = True,
  names_plots: bool = True,
):
  """Warns of skipped updates and dropped trajectories, and draws the plots.

  Args:
    experiment: the run.
    draws: whether to draw them.
    names_plots: whether to print their names.
  """
  try:
    result = summary.summarise_run(experiment.workdir)
    if skipped := result.get("skipped_updates", 0):
      print(
        f"Warning: {counted(skipped, 'update')} skipped, for numbers that are"
        " not finite. Look at the losses and norms in"
        f" {printable(experiment.logs / 'learner.csv')}."
      )
    if dropped := result.get("dropped_trajectories", 0):
      print(
        f"Warning: dropped {dropped:,} of the trajectories, for numbers that"
        " are not finite. logs/nodes/learner.log says what in them."
      )
    for path in figures.plot_run(experiment.workdir) if draws else ():
      if names_plots:
        print(f"  {printable(path)}")
  # Logs may be damaged, or another program's.
  except (OSError, ValueError, LookupError, csv.Error) as error:
    print(
      f"The plots could not be written: {printable(error)}", file=sys.stderr
    )
