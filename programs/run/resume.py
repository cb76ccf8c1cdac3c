"""Resuming: config.json, and whether a work directory's run can go on."""

import dataclasses
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax

from acme_stac import checkpointing, core, environments
from programs.run import paths, workdir
from programs.run.errors import UserError
from programs.run.experiment import (
  Experiment,
  differences,
  flag_of,
  to_plain,
  write_config,
)

# Fields of the agent that decide what a checkpoint's numbers mean.
_FIXED = ("metaparameter_range", "embedded", "embedding_per_head")


class Prepared(NamedTuple):
  """A run whose work directory is ready.

  Attributes:
    experiment: the run, as it goes on.
    step: learner steps that are already done.
    changes: settings that have changed since, as text.
  """

  experiment: Experiment
  step: int
  changes: list[str]


def prepare_workdir(experiment: Experiment) -> Prepared:
  """Makes the work directory, or checks that its run can be resumed.

  The caller holds the directory's lock, so that no other run reads or writes it
  meanwhile.

  Raises:
    UserError: if the directory cannot be written, or holds another run.
  """
  directory = experiment.workdir
  workdir.make(directory)
  paths.make_directory(experiment.checkpoints, "--workdir")
  experiment = with_specs_of_run(experiment)
  new = to_plain(experiment)
  try:
    newest = checkpointing.read_newest(experiment.checkpoints)
  except checkpointing.CheckpointError as error:
    raise _cannot_be_resumed(directory, error) from error
  old: dict[str, Any] = {}
  if newest is not None:
    file, arrays, metadata = newest
    _check_same_run(f"The checkpoint {file}", metadata, new)
    old = {name: value for name, value in metadata.items() if name in new}
  path = directory / "config.json"
  if os.path.lexists(path):
    old = _read_config(path)
    _check_same_run(str(directory), old, new)
  changes = differences(old, new) if old else []
  step = 0
  if newest is not None:
    try:
      state = checkpointing.fit(file, arrays, _state_template(experiment))
    except checkpointing.CheckpointError as error:
      raise _cannot_be_resumed(directory, error, changes) from error
    step = int(state.step)
  # A finished run keeps the settings that it was trained with.
  if step < experiment.config.num_updates or not path.exists():
    try:
      write_config(experiment)
    except OSError as error:
      raise paths.cannot_be_written(path, error, "--workdir") from error
  return Prepared(experiment, step, changes)


def with_specs_of_run(experiment: Experiment) -> Experiment:
  """Returns an experiment with the specs that its run was begun with.

  Networks of a run that an older version began do not know the bounds of
  observations; its config.json has none.
  """
  path = experiment.workdir / "config.json"
  if not path.is_file():
    return experiment
  begun_with = _read_config(path).get("environment_spec")
  if begun_with is None or environments.has_bounds(
    environments.spec_from_json(begun_with)
  ):
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
    raise UserError(
      f"{path} is damaged: {error}. Restore it, or choose another --workdir."
    ) from error
  return run


def _check_same_run(what: str, old: dict[str, Any], new: dict[str, Any]):
  """Checks that a description is that of the run to resume.

  Args:
    what: where the description comes from, for messages.
    old: contents of config.json, or the metadata of a checkpoint.
    new: contents of config.json of the run to resume.

  Raises:
    UserError: if it is not.
  """
  for name in ("environment", "agent"):
    if old.get(name) != new[name]:
      raise UserError(
        f"{what} holds a run of {name} {old.get(name)!r}, not"
        f" {new[name]!r}. Choose another --workdir, or remove this one."
      )
  agent = old.get("config")
  if not isinstance(agent, dict):
    raise UserError(
      f"{what} does not say which configuration it was made with. Choose"
      " another --workdir."
    )
  for name in _FIXED:
    if agent.get(name) != new["config"][name]:
      raise UserError(
        f"{what} holds a run with {flag_of(name)} {agent.get(name)!r}, not"
        f" {new['config'][name]!r}, which would change the meaning of its"
        " checkpoint. Choose another --workdir."
      )


def _state_template(experiment: Experiment) -> core.TrainingState:
  """Returns shapes and dtypes of the learner's state, computing nothing."""
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
    " its config.json, or another --workdir."
  )
