"""Checks of a run before any process is started, with readable errors."""

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from acme_stac import core, environments
from acme_stac.checks import FieldError, check_integer, check_number
from programs.run.errors import UserError
from programs.run.experiment import (
  Experiment,
  agent_overrides,
  base_config,
  describe,
  environment_options,
  flag_of,
)

# Whole numbers of a run -> the least value.
_LEAST = {
  "num_actors": 1,
  "environments_per_actor": 1,
  "num_queues": 1,
  "evaluation_every_steps": 1,
  "evaluation_episodes": 0,
  "evaluation_max_episode_steps": 1,
  "checkpoint_every_updates": 1,
  "checkpoints_to_keep": 1,
  "checkpoints_keep_one_in": 1,
}
_SECONDS = (
  "checkpoint_every_seconds", "environment_timeout_seconds", "patience_seconds",
  "log_every_seconds",
)
# The longest time that a thread can wait.
_MAX_SECONDS = 1e9


def make_experiment(
  config: ml_collections.ConfigDict, num_actors: int, workdir: str
) -> Experiment:
  """Checks a configuration and describes its run.

  Args:
    config: what get_config() of a configuration file returns.
    num_actors: actor processes.
    workdir: directory of the run.

  Raises:
    UserError: if the run cannot work.
  """
  try:
    _check_fields(config, base_config("small", "catch"))
    # Two, to find here what goes wrong only in a batch.
    with _probe(config.environment, 2, environment_options(config)) as probe:
      _check_action_repeat(config, probe)
      environments.check(probe)
      experiment = describe(config, num_actors, workdir, probe)
    _check_numbers(experiment)
    _check_networks(experiment)
    _check_json(experiment)
  except FieldError as error:
    raise UserError(f"{', '.join(map(flag_of, error.fields))}: {error}") from (
      error
    )
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error
  return experiment


def _check_fields(config: Any, defaults: Any, path: str = ""):
  """Raises ValueError if fields are missing in a user's configuration."""
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(
      f"{path or 'What get_config() returns'} must be an"
      f" ml_collections.ConfigDict, got {type(config).__name__}."
      " programs.run.experiment.base_config makes a configuration."
    )
  for name, default in defaults.items():
    # Which fields these have depends on the environment and the version.
    if path in ("environment_options", "stac"):
      continue
    field = f"{path}.{name}" if path else name
    if name not in config:
      raise ValueError(
        f"The configuration has no field {field!r}."
        " programs.run.experiment.base_config makes one with all fields."
      )
    if isinstance(default, ml_collections.ConfigDict):
      _check_fields(config[name], default, field)


@contextlib.contextmanager
def _probe(
  name: str, number: int, options: dict[str, Any]
) -> Iterator[environments.BatchedEnvironment]:
  """Makes environments, to see that they can be made, and closes them."""
  try:
    environment = environments.make_batched(name, number, seed=0, **options)
  except (ValueError, ImportError):
    raise
  except Exception as error:  # Environments may raise anything.
    raise ValueError(
      f"Environment {name!r} with options {options} cannot be made:"
      f" {environments.errors.describe_error(error)}"
    ) from error
  try:
    yield environment
  finally:
    environments.errors.close(environment)


def _check_action_repeat(
  config: ml_collections.ConfigDict, probe: environments.BatchedEnvironment
):
  """Raises ValueError for an action repeat that is not the environment's."""
  given = agent_overrides(config).get("action_repeat", probe.action_repeat)
  if given != probe.action_repeat:
    raise ValueError(
      f"--config.stac.action_repeat is {given}, but {config.environment} takes"
      f" {probe.action_repeat} environment steps per action. Leave it out."
    )


def _check_numbers(experiment: Experiment):
  """Raises ValueError for numbers of the run that are out of range."""
  for name, minimum in _LEAST.items():
    check_integer(name, getattr(experiment, name), minimum)
  check_integer("seed", experiment.seed, 0, 2**31 - 1)
  for name in _SECONDS:
    check_number(
      name, getattr(experiment, name), 0.0, _MAX_SECONDS, above=True
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


def _check_json(experiment: Experiment):
  """Raises ValueError if config.json cannot hold the run."""
  try:
    json.dumps(experiment.to_json())
  except TypeError as error:
    raise ValueError(
      f"config.json cannot hold this run: {error}. Options are numbers,"
      " strings, and lists of them."
    ) from error


def _check_networks(experiment: Experiment):
  """Raises ValueError for networks that do not work, computing nothing."""
  spec, config = experiment.environment_spec, experiment.config
  if not isinstance(experiment.networks, str | None):
    raise ValueError(
      f"networks must be python:MODULE:FACTORY, got {experiment.networks!r}."
    )
  factory = experiment.network_factory
  if experiment.networks is None:
    jax.eval_shape(factory(spec, config).init, jax.random.PRNGKey(0))
    return
  try:
    _apply_networks(factory(spec, config), experiment)
  except Exception as error:  # A user's factory may raise anything.
    raise ValueError(
      f"The networks of {experiment.networks!r} do not work:"
      f" {type(error).__name__}: {error}"
    ) from error


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
    return jax.eval_shape(
      function,
      params,
      observation,
      jax.eval_shape(lambda: networks.initial_state(config.batch_size)),
      jax.ShapeDtypeStruct(shape, np.int32),
      jax.ShapeDtypeStruct(
        (config.num_heads, len(config.embedded)), np.float32
      ),
    )

  core.check_output(apply(rows, networks.unroll), rows, config)
  output, _ = apply(rows[1:], networks.step)
  core.check_output(output, rows[1:], config)
