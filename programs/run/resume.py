"""Prepares a work directory; checks whether its run can be resumed."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from acme_stac import checkpointing, core, environments
from programs.run import paths, workdir
from programs.run.errors import UserError
from programs.run.experiment import Experiment, differences, flag_of

# Fields of the agent that determine the meaning of a checkpoint's numbers.
_FIXED = ("metaparameter_range", "embedded", "embedding_per_head")


class Prepared(NamedTuple):
  """A run whose work directory is ready.

  Attributes:
    experiment: the run to start or resume.
    step: learner steps that are already done.
    changes: settings that differ from those the run began with, as text.
    is_new: whether the directory held no run before.
  """

  experiment: Experiment
  step: int
  changes: list[str]
  is_new: bool


def prepare_workdir(experiment: Experiment) -> Prepared:
  """Makes the work directory, or checks that its run can be resumed.

  The caller must hold the directory's lock, which keeps other runs from reading
  or writing it.

  Raises:
    UserError: if the directory cannot be written, or holds another run.
  """
  prepared = check_workdir(experiment)
  record_settings(prepared)
  return prepared


def check_workdir(experiment: Experiment) -> Prepared:
  """Does what `prepare_workdir` does, without writing the run's settings."""
  directory = experiment.workdir
  workdir.make(directory)
  paths.make_directory(experiment.checkpoints, "--workdir")
  experiment = with_specs_of_run(experiment)
  new = experiment.to_json()
  try:
    newest = checkpointing.read_newest(experiment.checkpoints)
  except checkpointing.CheckpointError as error:
    raise _cannot_be_resumed(directory, error) from error
  path = directory / "config.json"
  changes = []
  is_new = newest is None and not os.path.lexists(path)
  if os.path.lexists(path):
    changes = _changes(str(directory), _read_config(path), new)
  elif newest is not None:
    file, _, metadata = newest
    changes = _changes(
      f"The checkpoint {file}",
      {name: value for name, value in metadata.items() if name in new}, new,
    )
  step = 0
  if newest is not None:
    file, arrays, _ = newest
    try:
      state = checkpointing.fit(file, arrays, _state_template(experiment))
    except checkpointing.CheckpointError as error:
      raise _cannot_be_resumed(directory, error, changes) from error
    step = int(state.step)
  return Prepared(experiment, step, changes, is_new)


def record_settings(prepared: Prepared):
  """Writes config.json, whole or not at all.

  Raises:
    UserError: if it cannot be written.
  """
  experiment = prepared.experiment
  path = experiment.workdir / "config.json"
  # A finished run keeps the settings that it was trained with.
  if prepared.step < experiment.config.num_updates or not path.exists():
    temporary = path.with_suffix(".tmp")
    try:
      temporary.write_text(json.dumps(experiment.to_json(), indent=2) + "\n")
      temporary.replace(path)
    except OSError as error:
      raise paths.cannot_be_written(path, error, "--workdir") from error


def common_step(runs: Sequence[Prepared]) -> int:
  """Returns the newest step that several runs can be resumed at together.

  A run that was killed while checkpoints were written is one behind others; if
  they were the first, those that have one begin anew.

  Raises:
    UserError: if they have no step in common, or some have only just been
      added.
  """
  if len({run.step for run in runs}) == 1:
    return runs[0].step
  new = next((run.experiment for run in runs if run.is_new), None)
  if new is not None:
    raise UserError(
      f"The runs beside {new.workdir}, which is new, have done"
      f" {max(run.step for run in runs):,} updates. To add runs, start them in"
      f" another --workdir, for example with --config.seed={new.seed}."
    )
  files = {
    run.experiment.workdir: {
      checkpointing.step_of(path): path
      for path in checkpointing.list_checkpoints(run.experiment.checkpoints)
    }
    for run in runs
  }
  shared = set.intersection(*[
    {*steps, *([0] if len(steps) < 2 else [])} for steps in files.values()
  ])
  for step in sorted(shared, reverse=True):
    found = [steps[step] for steps in files.values() if step in steps]
    if all(map(_is_intact, found)):
      return step
  listed = "\n".join(
    f"  {directory}: {sorted(steps) or 'none'}"
    for directory, steps in files.items()
  )
  raise UserError(
    "These runs cannot go on side by side, because their checkpoints have no"
    f" number of updates in common:\n{listed}\nContinue those that have (with"
    " other --seeds, or each by itself), or choose another --workdir."
  )


def _is_intact(path: pathlib.Path) -> bool:
  try:
    checkpointing.read(path)
  except checkpointing.CheckpointError:
    return False
  return True


def remove_later_checkpoints(experiment: Experiment, step: int):
  """Removes the checkpoints after a step that the run goes back to.

  Raises:
    UserError: if they cannot be removed.
  """
  for path in checkpointing.list_checkpoints(experiment.checkpoints):
    if checkpointing.step_of(path) > step:
      try:
        path.unlink()
      except OSError as error:
        raise paths.cannot_be_written(path, error, "--workdir") from error


def with_specs_of_run(experiment: Experiment) -> Experiment:
  """Returns the experiment with the specs that its run began with.

  If an older version began the run, its config.json has no bounds of
  observations, and its networks do not use them.

  Raises:
    UserError: if its config.json is damaged.
  """
  path = experiment.workdir / "config.json"
  if not path.is_file():
    return experiment
  begun_with = _read_config(path).get("environment_spec")
  if begun_with is None:
    return experiment
  try:
    spec = environments.spec_from_json(begun_with)
  except Exception as error:  # Of many kinds, for a damaged description.
    raise _damaged(path, f"environment_spec: {error!r}") from error
  if environments.has_bounds(spec):
    return experiment
  return dataclasses.replace(
    experiment,
    environment_spec=environments.without_bounds(experiment.environment_spec),
  )


def _read_config(path: pathlib.Path) -> dict[str, Any]:
  """Returns the run that a config.json describes.

  Raises:
    UserError: if it does not describe one.
  """
  try:
    run = json.loads(path.read_text())
    if not isinstance(run, dict):
      raise ValueError("it does not describe a run")
  except (OSError, ValueError) as error:
    raise _damaged(path, error) from error
  return run


def _damaged(path: pathlib.Path, problem: object) -> UserError:
  return UserError(
    f"{path} is damaged: {problem}. Restore it, or choose another --workdir."
  )


def _changes(
  what: str, old: dict[str, Any], new: dict[str, Any]
) -> list[str]:
  """Returns how a run's settings have changed since it began.

  Args:
    what: the source of the old settings, for messages.
    old: the old settings: contents of config.json, or a checkpoint's metadata.
    new: `Experiment.to_json` of the run to resume.

  Raises:
    UserError: if the changes make it another run.
  """
  for name in ("environment", "agent"):
    if old.get(name) != new[name]:
      raise UserError(
        f"{what} holds a run of {name} {old.get(name)!r}, not"
        f" {new[name]!r}. Choose another --workdir, or remove this one."
      )
  agent = old.get("config")
  for name in _FIXED:
    value = agent.get(name) if isinstance(agent, dict) else None
    if value != new["config"][name]:
      raise UserError(
        f"{what} holds a run with {flag_of(name)} {value!r}, not"
        f" {new['config'][name]!r}, which would change the meaning of its"
        " checkpoint. Choose another --workdir."
      )
  return differences(old, new)


def _state_template(experiment: Experiment) -> core.TrainingState:
  """Returns shapes and dtypes of the learner's state, without computing it."""
  networks = experiment.network_factory(
    experiment.environment_spec, experiment.config
  )
  update = core.make_update(networks, experiment.config)
  return jax.eval_shape(update.init, jax.random.PRNGKey(0))


def _cannot_be_resumed(
  directory: pathlib.Path, error: Exception, changes: list[str] | None = None
) -> UserError:
  changed = "\nChanged: " + "; ".join(changes) if changes else ""
  return UserError(
    f"{directory} cannot be resumed. {error}{changed}\nUse the configuration in"
    " its config.json, put back a file that is damaged, or choose another"
    " --workdir."
  )
