"""The runs that one compiled program trains side by side.

`--seeds` and `--vary` say which. Each has a directory below --workdir that is a
run like any other's.
"""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from acme_stac.checks import FieldError, unknown
from acme_stac.evaluation.text import counted, listed_briefly
from acme_stac.on_device import HYPERPARAMETERS
from programs.launch import modes
from programs.run import machine, resume, validation
from programs.run import workdir as workdir_lib
from programs.run.errors import UserError
from programs.run.experiment import Experiment

# Files that a run has open, and the process beside its runs.
_FILES, _OTHER_FILES = 10, 500


class Prepared(NamedTuple):
  """Runs whose directories are ready.

  Attributes:
    experiments: the runs.
    step: updates that all of them have done.
    changes: what has changed since they began, as text.
    locks: open files that hold the locks of the directories.
  """

  experiments: tuple[Experiment, ...]
  step: int
  changes: list[str]
  locks: tuple[BinaryIO, ...]


def make_experiments(parsed: Any, num_actors: int) -> tuple[Experiment, ...]:
  """Checks the runs of parsed flags; one, unless several go side by side.

  Raises:
    UserError: if anything about them cannot work.
  """
  varied = _parse_values(parsed.vary)
  base = validation.make_experiment(
    parsed.config, num_actors, parsed.workdir,
    modes.MODES[parsed.launch].is_on_device,
  )
  if not varied and parsed.seeds == 1:
    return (base,)
  if base.wandb_project is not None:
    raise UserError(
      "--config.wandb_project takes one run at a time. Leave it out, or leave"
      " out --seeds and --vary."
    )
  experiments = []
  for values in itertools.product(*varied.values()):
    chosen: dict[str, Any] = dict(zip(varied, values, strict=True))
    try:
      config = dataclasses.replace(base.config, **chosen)
    except FieldError as error:
      raise UserError(f"--vary: {error}") from error
    directory = base.workdir.joinpath(
      *[f"{n}={repr(x).removesuffix('.0')}" for n, x in chosen.items()]
    )
    experiments += [
      dataclasses.replace(
        base, config=config, workdir=directory / str(number),
        seed=base.seed + number,
      )
      for number in range(parsed.seeds)
    ]
  try:
    experiments[-1].check_ranges()
  except FieldError as error:
    raise UserError(f"--seeds: {error}") from error
  return tuple(experiments)


def _parse_values(texts: Iterable[str]) -> dict[str, list[float]]:
  """Returns the values of each --vary by the name of the hyperparameter."""
  varied: dict[str, list[float]] = {}
  for text in texts:
    name, equals, values = text.partition("=")
    try:
      parsed = [float(value) for value in values.split(",")]
    except ValueError:
      parsed = []
    if name not in HYPERPARAMETERS and equals:
      raise UserError(unknown("field of --vary", name, HYPERPARAMETERS))
    if not parsed:
      raise UserError(
        "--vary must be FIELD=VALUE,VALUE,..., for example"
        f" --vary=entropy_cost=0.01,0.03, got {text!r}."
      )
    if name in varied or len(set(parsed)) < len(parsed):
      raise UserError(f"--vary={text} repeats a field or a value.")
    varied[name] = parsed
  return varied


def check_place(workdir: pathlib.Path, experiments: Sequence[Experiment]):
  """Checks that a directory does not hold runs of another arrangement.

  Args:
    workdir: the directory that --workdir names.
    experiments: the runs to start or resume there.

  Raises:
    UserError: if it is the work directory of a run and there are several now,
      or the other way round.
  """
  is_run = (workdir / "config.json").exists()
  are_below = experiments[0].workdir != workdir
  if are_below and is_run:
    raise UserError(
      f"{workdir} is the work directory of one run; with --seeds and --vary,"
      " runs have directories below it. Choose another --workdir, or leave"
      " --seeds and --vary out."
    )
  below = workdir_lib.runs_below(workdir)
  if not are_below and not is_run and below:
    raise UserError(
      f"{workdir} has runs in directories below it, such as"
      f" {below[0].relative_to(workdir)}. Give the --seeds and --vary that they"
      " began with, or choose another --workdir."
    )


def prepare(
  workdir: pathlib.Path, experiments: Sequence[Experiment]
) -> Prepared:
  """Makes the runs' directories, or checks that they can be resumed together.

  The caller must hold the lock of `workdir`. Writes to no run before all are
  checked.

  Args:
    workdir: the directory that --workdir names.
    experiments: runs with directories of their own below it.

  Raises:
    UserError: if one of them cannot be written, holds another run, or has no
      step in common with the others.
  """
  machine.allow_open_files(_FILES * len(experiments) + _OTHER_FILES)
  with contextlib.ExitStack() as stack:
    locks = []
    for experiment in experiments:
      workdir_lib.make(experiment.workdir)
      locks.append(
        stack.enter_context(workdir_lib.lock(experiment.workdir))
      )
    runs = {
      str(experiment.workdir.relative_to(workdir)):
        resume.check_workdir(experiment)
      for experiment in experiments
    }
    step = resume.common_step(list(runs.values()))
    changes = _list_changes({name: run.changes for name, run in runs.items()})
    below = workdir_lib.runs_below(workdir)
    others = [
      name for path in below
      if (name := str(path.relative_to(workdir))) not in runs
    ]
    if others:
      changes.append(f"{listed_briefly(others)}: not continued")
    ahead = {name: run for name, run in runs.items() if run.step > step}
    if ahead:
      most = max(run.step for run in ahead.values())
      changes.append(
        f"{listed_briefly(ahead)}: {counted(most, 'update')} -> {step:,}, which"
        " every run has done"
      )
    for run in runs.values():
      resume.remove_later_checkpoints(run.experiment, step)
      resume.record_settings(run._replace(step=step))
    stack.pop_all()
  return Prepared(
    tuple(run.experiment for run in runs.values()), step, changes, tuple(locks)
  )


def _list_changes(changes: Mapping[str, Sequence[str]]) -> list[str]:
  """Returns each change once, with the runs that it is of unless all are."""
  names: dict[str, list[str]] = {}
  for name, of_run in changes.items():
    for change in of_run:
      names.setdefault(change, []).append(name)
  return [
    change if len(of) == len(changes) else f"{listed_briefly(of)}: {change}"
    for change, of in names.items()
  ]
