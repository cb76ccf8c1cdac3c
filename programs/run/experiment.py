"""From a configuration file and flags to a checked description of a run.

Everything that can be wrong with a run is found here, before any process is
started.
"""

import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import typing
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from ml_collections import config_dict

import acme_stac
from acme_stac import checkpointing, core, environments
from acme_stac.checks import (
  MAX_SIZE,
  FieldError,
  check_integer,
  check_number,
  plain_type,
)
from acme_stac.environment_loop import MAX_EPISODE_STEPS
from programs.run import machine
from programs.run import workdir as workdir_lib
from programs.run.errors import UserError

# Fields of the agent for which None is a value: nothing of the kind.
_CAN_BE_OFF = ("lstm_size", "max_abs_reward", "max_gradient_norm")
# Numbers of the whole run, with the least that whole ones can be; None is for
# seconds.
_LIMITS = {
  "checkpoint_every_seconds": None,
  "checkpoint_every_updates": 1,
  "checkpoints_to_keep": 1,
  "checkpoints_keep_one_in": 1,
  "environment_timeout_seconds": None,
  "patience_seconds": None,
  "log_every_seconds": None,
}
# What a slip would ask for more than; what fits is less, and the machine's.
_MAX_QUEUES = 64
_MAX_PARAMETERS = 2**30
_MAX_BATCH_BYTES = 2**36
# What a thread can wait for.
_MAX_SECONDS = 1e9
# What hosts of one run may differ in.
_OF_A_HOST = ("num_actors", "wandb_project", *_LIMITS)
# What a checkpoint's numbers mean depends on them.
_FIXED = ("metaparameter_range", "embedded", "embedding_per_head")


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A run: plain data that every process gets.

  Attributes:
    agent: name of the agent preset.
    config: the agent's hyperparameters.
    environment: name of the environment.
    environment_options: options of the environment, for training and
      evaluation.
    environment_spec: specs of one environment.
    networks: what makes the networks, as python:<module>:<factory>; None for
      `acme_stac.make_networks`.
    seed: seed of everything.
    num_actors: actor processes.
    environments_per_actor: environments that each of them steps.
    num_queues: queues that the actors share.
    evaluation_every_steps: environment steps between evaluations.
    evaluation_episodes: episodes of an evaluation; 0 for no evaluator.
    evaluation_max_episode_steps: actions after which an episode of an
      evaluation is cut off.
    evaluation_greedy: evaluate the most probable actions instead of samples.
    checkpoint_every_seconds: time between checkpoints.
    checkpoint_every_updates: updates between checkpoints, as well.
    checkpoints_to_keep: newest checkpoints that are kept.
    checkpoints_keep_one_in: of so many checkpoints one is kept for ever.
    environment_timeout_seconds: how long a reset or a step may take.
    patience_seconds: how long a node, or the run, waits for what is silent.
    log_every_seconds: least time between rows of a log.
    wandb_project: project of Weights & Biases that the learner's and the
      evaluator's logs go to as well; None for none.
    workdir: directory of the run.
  """

  agent: str
  config: acme_stac.STACConfig
  environment: str
  environment_options: dict[str, Any]
  environment_spec: environments.EnvironmentSpec
  networks: str | None
  seed: int
  num_actors: int
  environments_per_actor: int
  num_queues: int
  evaluation_every_steps: int
  evaluation_episodes: int
  evaluation_max_episode_steps: int
  evaluation_greedy: bool
  checkpoint_every_seconds: float
  checkpoint_every_updates: int
  checkpoints_to_keep: int
  checkpoints_keep_one_in: int
  environment_timeout_seconds: float
  patience_seconds: float
  log_every_seconds: float
  wandb_project: str | None
  workdir: pathlib.Path

  @property
  def checkpoints(self) -> pathlib.Path:
    """Directory of the checkpoints."""
    return self.workdir / "checkpoints"

  @property
  def logs(self) -> pathlib.Path:
    """Directory of the logs."""
    return self.workdir / "logs"

  @property
  def network_factory(self) -> Callable[..., acme_stac.STACNetworks]:
    """What makes the networks, of specs and `config`."""
    if self.networks is None:
      return acme_stac.make_networks
    name = self.networks.removeprefix("python:")
    return environments.import_factory(
      name, "The factory of networks", "environment specs and a STACConfig"
    )

  def make_environment(
    self, num_environments: int, seed: int
  ) -> environments.BatchedEnvironment:
    """Makes a batch of the run's environment."""
    return environments.make_batched(
      self.environment, num_environments, seed, **self.environment_options
    )

  def to_json(self) -> dict[str, Any]:
    """Returns what is written to config.json."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in ("config", "environment_spec", "workdir")
    }
    return {
      **fields,
      "environment_spec": environments.spec_to_json(self.environment_spec),
      "config": dataclasses.asdict(self.config),
    }


def host_differences(
  theirs: dict[str, Any], ours: dict[str, Any]
) -> list[str]:
  """Returns in what two hosts' `to_json` differ that must not.

  Args:
    theirs: of the learner's host.
    ours: of this one.
  """
  theirs, ours = (
    {
      name: value
      for name, value in json.loads(json.dumps(run)).items()
      if name not in _OF_A_HOST
    }
    for run in (theirs, ours)
  )
  return [
    difference
    for difference in _differences(theirs, ours)
    # The learner ends the run; who waits for it may know of a shorter one.
    if not difference.startswith("--config.num_environment_steps:")
  ]


def base_config(domain: str, environment: str) -> ml_collections.ConfigDict:
  """Returns the fields of every configuration file.

  Fields under `stac` override those of `acme_stac.STACConfig`; None leaves what
  the agent's preset says, and 0 is None where that means that something is off.
  """
  overrides = {
    name: config_dict.placeholder(plain_type(hint))
    for name, hint in typing.get_type_hints(acme_stac.STACConfig).items()
    # It has a place of its own, see below.
    if name != "num_environment_steps"
  }
  return ml_collections.ConfigDict({
    "agent": "stacx",
    "domain": domain,
    "environment": environment,
    "environment_options": _environment_options(environment),
    "networks": config_dict.placeholder(str),
    "num_environment_steps": config_dict.placeholder(int),
    "environments_per_actor": config_dict.placeholder(int),
    "num_queues": 1,
    "seed": 0,
    "evaluation": {
      "every_steps": 100_000,
      "episodes": 10,
      "max_episode_steps": MAX_EPISODE_STEPS,
      "greedy": False,
    },
    "checkpoint_every_seconds": 60.0,
    "checkpoint_every_updates": 10_000,
    "checkpoints_to_keep": 3,
    "checkpoints_keep_one_in": 60,
    "environment_timeout_seconds": 300.0,
    "patience_seconds": 1800.0,
    "log_every_seconds": 1.0,
    "wandb_project": config_dict.placeholder(str),
    "stac": overrides,
  })


def _environment_options(environment: str) -> dict[str, Any]:
  """Returns a placeholder for every option of an environment."""
  return {
    name: config_dict.placeholder(option_type)
    for name, option_type in environments.option_types(environment).items()
  }


def make_experiment(
  config: ml_collections.ConfigDict, num_actors: int, workdir: str
) -> Experiment:
  """Checks a configuration and describes its run.

  Args:
    config: as a file under configs/ returns it.
    num_actors: actor processes.
    workdir: directory of the run.

  Raises:
    UserError: if anything about it cannot work.
  """
  try:
    _check_fields(config)
    overrides = {
      name: value for name, value in config.stac.items() if value is not None
    }
    for name, value in overrides.items():
      if isinstance(value, list):
        overrides[name] = tuple(value)
      if name in _CAN_BE_OFF and value == 0:
        overrides[name] = None
    if config.num_environment_steps is not None:
      overrides["num_environment_steps"] = config.num_environment_steps
    options = {
      name: value
      for name, value in config.environment_options.items()
      if value is not None
    }
    # Two, so that what only a batch shows is found before the run.
    with _probe(config.environment, 2, options) as probe:
      overrides.setdefault("action_repeat", probe.action_repeat)
      if overrides["action_repeat"] != probe.action_repeat:
        raise ValueError(
          f"--config.stac.action_repeat is {overrides['action_repeat']}, but"
          f" {config.environment} takes {probe.action_repeat} environment steps"
          " per action. Leave it out."
        )
      environments.check(probe)
      spec = environments.environment_spec(probe)
    stac = acme_stac.make_config(
      config.agent, config.domain, spec, **overrides
    )
    experiment = Experiment(
      agent=config.agent,
      config=stac,
      environment=config.environment,
      environment_options=options,
      environment_spec=_spec_of_run(spec, _absolute(workdir)),
      networks=config.networks,
      seed=config.seed,
      num_actors=num_actors,
      environments_per_actor=_environments_per_actor(config, stac),
      num_queues=config.num_queues,
      evaluation_every_steps=config.evaluation.every_steps,
      evaluation_episodes=config.evaluation.episodes,
      evaluation_max_episode_steps=config.evaluation.max_episode_steps,
      evaluation_greedy=config.evaluation.greedy,
      **{name: config[name] for name in _LIMITS},
      wandb_project=config.wandb_project,
      workdir=_absolute(workdir),
    )
    _check_sizes(experiment)
    _check_networks(experiment)
    _to_plain(experiment)
  except FieldError as error:
    raise UserError(_name_flags(error)) from error
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error
  except SystemExit as error:  # Raised by an environment, or its networks.
    raise UserError(
      f"The code of {config.environment} ended the program with exit code"
      f" {error.code} when it was tried."
    ) from error
  return experiment


def flag_of(path: str) -> str:
  """Returns the flag that sets a field.

  Args:
    path: of the field in config.json, for example "config.discount"; or the
      name of a field of STACConfig. What no flag sets is returned as it is.
  """
  first, _, rest = path.partition(".")
  if first == "num_actors":
    return "--num_actors"
  if first == "environment_spec":
    return path
  if first == "config":
    path = rest
  if path == "num_environment_steps":
    return f"--config.{path}"
  if path.partition(".")[0] in typing.get_type_hints(acme_stac.STACConfig):
    return f"--config.stac.{path}"
  if path.startswith("evaluation_"):
    return f"--config.evaluation.{path.removeprefix('evaluation_')}"
  return f"--config.{path}"


def _name_flags(error: FieldError) -> str:
  """Returns the text of an error with flags in place of fields."""
  text = str(error)
  if len(error.fields) == 1 and text.startswith(f"{error.fields[0]} "):
    return flag_of(error.fields[0]) + text.removeprefix(error.fields[0])
  return f"{', '.join(map(flag_of, error.fields))}: {text}"


def _check_fields(config: Any):
  """Raises ValueError unless `config` has the fields of `base_config`."""
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(
      "get_config() of a configuration file must return an"
      f" ml_collections.ConfigDict, got {type(config).__name__}."
      " programs.run.experiment.base_config makes one."
    )
  defaults = base_config("small", "catch")
  for name, default in defaults.items():
    if name not in config:
      raise ValueError(
        f"The configuration has no field {name!r}."
        " programs.run.experiment.base_config makes one with all of them."
      )
    is_node = isinstance(default, ml_collections.ConfigDict)
    if is_node and not isinstance(config[name], ml_collections.ConfigDict):
      raise ValueError(
        f"{name} of the configuration must be a ConfigDict, got"
        f" {config[name]!r}."
      )
  for name in defaults.evaluation:
    if name not in config.evaluation:
      raise ValueError(f"The configuration has no field evaluation.{name}.")
  for name in ("agent", "domain", "environment"):
    if not isinstance(config[name], str):
      raise ValueError(f"{name} must be a name, got {config[name]!r}.")


def _absolute(workdir: str) -> pathlib.Path:
  try:
    return pathlib.Path(workdir).expanduser().absolute()
  except RuntimeError as error:  # The home directory of nobody.
    raise ValueError(
      f"The work directory {workdir} cannot be found: {error} Choose another"
      " one with --workdir."
    ) from error


def _spec_of_run(
  spec: environments.EnvironmentSpec, workdir: pathlib.Path
) -> environments.EnvironmentSpec:
  """Returns the specs from which the networks of a run are made.

  A run that an older version began goes on without bounds of observations,
  which its networks did not know.
  """
  file = workdir / "config.json"
  try:
    if not file.is_file():  # Reading a FIFO would wait for ever.
      return spec
    run = json.loads(file.read_text())
    begun_with = environments.spec_from_json(run["environment_spec"])
  except Exception:  # No run yet, or one that other checks refuse.
    return spec
  if environments.has_bounds(begun_with):
    return spec
  return environments.without_bounds(spec)


def _to_plain(experiment: Experiment) -> dict[str, Any]:
  """Returns what config.json will hold; raises ValueError if it cannot."""
  try:
    return json.loads(json.dumps(experiment.to_json()))
  except (TypeError, RecursionError) as error:
    raise ValueError(
      f"config.json cannot hold this run: {error}. Options are numbers, texts,"
      " and lists of them."
    ) from error


def _environments_per_actor(
  config: ml_collections.ConfigDict, stac: acme_stac.STACConfig
) -> int:
  """Returns what is asked for, or the most up to 16 that divide the batch."""
  if config.environments_per_actor is not None:
    return config.environments_per_actor
  return max(n for n in range(1, 17) if stac.batch_size % n == 0)


class _probe:  # noqa: N801 (a context manager, used like a function)
  """Makes environments to see that they can be made, and closes them."""

  def __init__(self, name: str, number: int, options: dict[str, Any]):
    try:
      self._environment = environments.make_batched(
        name, number, seed=0, **options
      )
    except (ValueError, ImportError):
      raise
    except Exception as error:  # Whatever an environment may raise.
      raise ValueError(
        f"Environment {name!r} with options {options} cannot be made:"
        f" {environments.base.describe_error(error)}"
      ) from error

  def __enter__(self) -> environments.BatchedEnvironment:
    return self._environment

  def __exit__(self, *unused_args):
    environments.base.close(self._environment)


def _check_sizes(experiment: Experiment):
  """Raises ValueError for numbers of the run that are out of range."""
  for name, minimum, maximum in (
    ("num_actors", 1, MAX_SIZE),
    ("environments_per_actor", 1, MAX_SIZE),
    ("evaluation_every_steps", 1, 10**15),
    ("evaluation_episodes", 0, MAX_SIZE),
    ("evaluation_max_episode_steps", 1, 10**9),
    ("seed", 0, 2**31 - 1),
    ("num_queues", 1, _MAX_QUEUES),
    *((name, minimum, 10**15) for name, minimum in _LIMITS.items()),
  ):
    value = getattr(experiment, name)
    if minimum is not None:
      check_integer(name, value, minimum, maximum)
    else:
      check_number(name, value, 0.0, _MAX_SECONDS, above=True)
  if not isinstance(experiment.evaluation_greedy, bool):
    raise ValueError(
      "--config.evaluation.greedy must be True or False, got"
      f" {experiment.evaluation_greedy!r}."
    )
  if experiment.wandb_project and not importlib.util.find_spec("wandb"):
    raise ValueError(
      "--config.wandb_project is set, but Weights & Biases is not installed."
      " Install the version that fits: pip install -e '.[wandb]' in a clone of"
      " the project. Or leave it out."
    )
  batch = experiment.config.batch_size
  if batch % experiment.environments_per_actor:
    divisors = [n for n in range(1, batch + 1) if batch % n == 0]
    raise ValueError(
      f"--config.environments_per_actor ({experiment.environments_per_actor})"
      f" must divide --config.stac.batch_size ({batch}): {divisors}."
    )


def _check_networks(experiment: Experiment):
  """Raises ValueError for networks or batches that no machine has room for.

  Computes nothing and allocates nothing. What passes may still be too much for
  this machine.
  """
  spec, config = experiment.environment_spec, experiment.config
  factory = experiment.network_factory
  if experiment.networks is not None:
    try:
      _apply_networks(factory(spec, config), experiment)
    except Exception as error:  # A user's factory may raise anything.
      raise ValueError(
        f"The networks of {experiment.networks!r} do not work:"
        f" {type(error).__name__}: {error}"
      ) from error
  shapes = jax.eval_shape(
    factory(spec, config).init, jax.random.PRNGKey(0)
  )
  parameters = sum(
    math.prod(leaf.shape) for leaf in jax.tree_util.tree_leaves(shapes)
  )
  if parameters > _MAX_PARAMETERS:
    raise ValueError(
      f"The networks would have {parameters:,} parameters, but"
      f" {_MAX_PARAMETERS:,} is the most. Make --config.stac.torso_sizes,"
      " --config.stac.lstm_size, --config.stac.head_sizes or the observations"
      " smaller."
    )
  observation = sum(
    math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
    for leaf in jax.tree_util.tree_leaves(spec.observations)
  )
  size = config.batch_size * (config.trajectory_length + 1) * observation
  if size > _MAX_BATCH_BYTES:
    raise ValueError(
      f"A batch would have {size:,} bytes of observations, but"
      f" {_MAX_BATCH_BYTES:,} is the most. Make --config.stac.batch_size,"
      " --config.stac.trajectory_length or the observations smaller."
    )


def _apply_networks(networks: Any, experiment: Experiment):
  """Applies a user's networks to the shapes of a batch, computing nothing."""
  config = experiment.config
  params = jax.eval_shape(networks.init, jax.random.PRNGKey(0))
  rows = (config.trajectory_length + 1, config.batch_size)

  def apply(shape: tuple[int, ...], function: Callable[..., Any]) -> Any:
    observation = jax.tree_util.tree_map(
      lambda leaf: jax.ShapeDtypeStruct((*shape, *leaf.shape), leaf.dtype),
      experiment.environment_spec.observations,
    )
    condition = jax.ShapeDtypeStruct(
      (config.num_heads, len(config.embedded)), np.float32
    )
    return jax.eval_shape(
      function,
      params,
      observation,
      jax.eval_shape(lambda: networks.initial_state(config.batch_size)),
      jax.ShapeDtypeStruct(shape, np.int32),
      *[condition] * bool(config.embedded),
    )

  core.check_output(apply(rows, networks.unroll), rows, config)
  output, _ = apply(rows[1:], networks.step)
  core.check_output(output, rows[1:], config)


def prepare_workdir(
  experiment: Experiment,
) -> tuple[int, list[str]]:
  """Makes the work directory, or checks that its run can be resumed.

  Whoever calls it holds the directory's lock, so that no other run reads or
  writes it meanwhile.

  Returns:
    The learner steps that are already done, and what has changed since.

  Raises:
    UserError: if the directory cannot be written, or holds another run.
  """
  workdir = experiment.workdir
  workdir_lib.make(workdir)
  machine.make_directory(experiment.checkpoints, "--workdir")
  path = workdir / "config.json"
  new = _to_plain(experiment)
  try:
    newest = checkpointing.read_newest(experiment.checkpoints)
  except checkpointing.CheckpointError as error:
    raise UserError(
      f"{workdir} cannot be resumed. {error}\nUse another --workdir."
    ) from error
  step = 0
  described = []
  if newest is not None:
    file, arrays, metadata = newest
    _check_same_run(f"The checkpoint {file}", metadata, new)
    described.append(metadata)
  if os.path.lexists(path):
    old = _read_config(path)
    _check_same_run(str(workdir), old, new)
    described.append(old)
  changes = _differences(_known(described[-1], new), new) if described else []
  if newest is not None:
    try:
      state = checkpointing.fit(
        file, arrays, training_state_template(experiment)
      )
    except checkpointing.CheckpointError as error:
      hint = "\nChanged: " + "; ".join(changes) if changes else ""
      raise UserError(
        f"{workdir} cannot be resumed. {error}{hint}\nUse the configuration of"
        " its config.json, or another --workdir."
      ) from error
    step = int(state.step)
  if step >= experiment.config.num_updates and path.exists():
    return step, changes  # Nothing will be done with these settings.
  try:
    write_config(experiment)
  except OSError as error:
    raise UserError(
      f"{path} cannot be written ({error}). Choose another --workdir, or remove"
      " what is in the way."
    ) from error
  return step, changes


def write_config(experiment: Experiment):
  """Writes config.json, whole or not at all.

  Raises:
    OSError: if it cannot be written.
  """
  path = experiment.workdir / "config.json"
  temporary = path.with_suffix(".tmp")
  temporary.unlink(missing_ok=True)
  temporary.write_text(json.dumps(_to_plain(experiment), indent=2) + "\n")
  temporary.replace(path)


def _known(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
  """Returns what `old`, perhaps of a checkpoint, has of config.json."""
  return {name: value for name, value in old.items() if name in new}


def _check_same_run(what: str, old: dict[str, Any], new: dict[str, Any]):
  """Raises UserError if a description is not that of the run to resume.

  Args:
    what: has the description, in messages.
    old: of config.json, or the metadata of a checkpoint.
    new: of the run to resume.
  """
  for name in ("environment", "agent"):
    if old.get(name) != new[name]:
      raise UserError(
        f"{what} holds a run of {name} {old.get(name)!r}, not"
        f" {new[name]!r}. Choose another --workdir, or remove this one."
      )
  old_agent = old.get("config")
  if not isinstance(old_agent, dict):
    raise UserError(
      f"{what} does not say which configuration it was made with. Choose"
      " another --workdir."
    )
  for name in _FIXED:
    if old_agent.get(name) != new["config"][name]:
      raise UserError(
        f"{what} holds a run with {flag_of(name)}"
        f" {old_agent.get(name)!r}, not"
        f" {new['config'][name]!r}, and its checkpoint means something else"
        " with another one. Choose another --workdir."
      )


def _read_config(path: pathlib.Path) -> dict[str, Any]:
  """Returns what `path` has of its run; raises UserError if it has none."""
  try:
    if not path.is_file():
      raise ValueError("it is not a regular file")
    run = json.loads(path.read_text())
    if not isinstance(run, dict) or not isinstance(run.get("config"), dict):
      raise ValueError("it does not describe a run")
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(
      f"{path} is damaged: {error}. Put back what it was, or choose another"
      " --workdir."
    ) from error
  return run


def training_state_template(experiment: Experiment) -> Any:
  """Returns shapes and dtypes of the learner's state, computing nothing."""
  networks = experiment.network_factory(
    experiment.environment_spec, experiment.config
  )
  update = acme_stac.core.make_update(networks, experiment.config)
  return jax.eval_shape(update.init, jax.random.PRNGKey(0))


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
  if isinstance(old, dict) and isinstance(new, dict):
    changes = []
    for name in sorted(old.keys() | new.keys()):
      changes += _differences(
        old.get(name), new.get(name), f"{prefix}.{name}" if prefix else name
      )
    return changes
  return [] if old == new else [f"{flag_of(prefix)}: {old!r} -> {new!r}"]
