"""Checks a run before any process is started, with readable errors."""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from acme_stac import core, environments, on_device
from acme_stac.checks import FieldError
from acme_stac.on_device import registry
from programs.run.errors import UserError
from programs.run.experiment import (
  Experiment,
  agent_overrides,
  base_config,
  describe,
  environment_options,
  flag_of,
)


def make_experiment(
  config: ml_collections.ConfigDict,
  num_actors: int,
  workdir: str,
  is_on_device: bool = False,
) -> Experiment:
  """Checks a configuration and returns its experiment.

  Args:
    config: the result of a configuration file's get_config().
    num_actors: number of actors.
    workdir: directory of the run.
    is_on_device: whether environments step inside the compiled program.

  Raises:
    UserError: if the run cannot work.
  """
  try:
    _check_fields(config)
    options = environment_options(config)
    if is_on_device:
      environment = _make_on_device(config.environment, options)
      _check_action_repeat(config, environment)
      on_device.check(environment)
      experiment = describe(config, num_actors, workdir, environment)
      _check_num_environments(experiment)
    else:
      with _probe(config.environment, options) as probe:
        _check_action_repeat(config, probe)
        environments.check(probe)
        experiment = describe(config, num_actors, workdir, probe)
    experiment.check_ranges()
    _check_values(experiment)
    _check_networks(experiment)
  except FieldError as error:
    raise UserError(f"{', '.join(map(flag_of, error.fields))}: {error}") from (
      error
    )
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error
  return experiment


def _check_fields(config: ml_collections.ConfigDict):
  """Raises ValueError if a user's configuration lacks fields."""
  defaults = base_config("small", "catch")
  lacking = [
    name
    for name, default in defaults.items()
    if name not in config
    or isinstance(default, ml_collections.ConfigDict)
    and not isinstance(config[name], ml_collections.ConfigDict)
  ]
  if not lacking:
    lacking = [
      f"evaluation.{name}"
      for name in defaults.evaluation
      if name not in config.evaluation
    ]
  if lacking:
    raise ValueError(
      f"The configuration lacks fields: {', '.join(lacking)}."
      " programs.run.experiment.base_config makes one with all fields."
    )


@contextlib.contextmanager
def _probe(
  name: str, options: dict[str, Any]
) -> Iterator[environments.BatchedEnvironment]:
  """Makes two environments, as some fail only in a batch; closes them.

  Raises:
    ValueError: if they cannot be made.
    ImportError: if their package is missing.
  """
  try:
    environment = environments.make_batched(name, 2, seed=0, **options)
  except FieldError as error:
    raise _wrong_option(error) from error
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


def _wrong_option(error: FieldError) -> ValueError:
  """Returns the error of an environment's option, with its flag."""
  flags = [f"--config.environment_options.{name}" for name in error.fields]
  return ValueError(f"{', '.join(flags)}: {error}")


def _make_on_device(
  name: str, options: dict[str, Any]
) -> on_device.Environment:
  """Makes an environment written in JAX.

  Raises:
    ValueError: if it cannot be made, or is not written in JAX.
    ImportError: if its package is missing.
  """
  try:
    return registry.make(name, **options)
  except FieldError as error:
    raise _wrong_option(error) from error
  except ValueError as error:
    if registry.is_on_device(name):
      raise
    raise ValueError(
      f"--launch=on_device takes environments written in JAX. {error} The other"
      " layouts (--launch=serial, colocated, local_mp, ...) take those that are"
      " not."
    ) from error


def _check_num_environments(experiment: Experiment):
  """Raises ValueError unless batches are whole steps of the environments."""
  number = experiment.environments_per_actor
  if experiment.config.batch_size % number:
    raise ValueError(
      f"--config.environments_per_actor ({number}) must divide"
      f" --config.stac.batch_size ({experiment.config.batch_size}) with"
      " --launch=on_device."
    )


def _check_action_repeat(
  config: ml_collections.ConfigDict,
  probe: environments.BatchedEnvironment | on_device.Environment,
):
  """Raises ValueError if the action repeat differs from the environment's."""
  given = agent_overrides(config).get("action_repeat", probe.action_repeat)
  if given != probe.action_repeat:
    raise ValueError(
      f"--config.stac.action_repeat is {given}, but {config.environment} takes"
      f" {probe.action_repeat} environment steps per action. Leave it out."
    )


def _check_values(experiment: Experiment):
  """Raises ValueError if values do not fit each other or this machine."""
  if experiment.wandb_project and not importlib.util.find_spec("wandb"):
    raise ValueError(
      "--config.wandb_project is set, but Weights & Biases is not installed."
      " Install the matching version (pip install -e '.[wandb]' in a clone of"
      " the project), or leave the field out."
    )
  batch = experiment.config.batch_size
  if (
    batch % experiment.environments_per_actor
    and experiment.environments_per_actor % batch
  ):
    divisors = [n for n in range(1, batch + 1) if batch % n == 0]
    raise ValueError(
      f"--config.environments_per_actor ({experiment.environments_per_actor})"
      f" must divide --config.stac.batch_size ({batch}): {divisors}."
      " Or it must be a multiple of it."
    )
  try:
    experiment.to_json()
  except TypeError as error:
    raise ValueError(
      f"config.json cannot hold this run: {error}. Options must be numbers,"
      " strings, or lists of them."
    ) from error


def _check_networks(experiment: Experiment):
  """Raises ValueError if the networks do not work; only traces them."""
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
  """Applies a user's networks to the shapes of a batch, without computing."""
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
