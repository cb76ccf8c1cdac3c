"""The description of a run: plain data, made from a configuration file.

Each field of `Experiment` stands with its default, its range and its meaning;
the configuration of a run is made from them by `base_config`.
"""

import dataclasses
import json
import pathlib
import typing
from collections.abc import Callable
from typing import Any

import ml_collections
from ml_collections import config_dict

import acme_stac
from acme_stac import environments, on_device
from acme_stac.checks import IntegerRange, NumberRange, plain_type
from acme_stac.environment_loop import MAX_EPISODE_STEPS

_COUNT = IntegerRange(1, 2**63)
# The upper limit is about the longest time that a thread can wait.
_SECONDS = NumberRange(0.0, 1e9, above=True)
# Fields of the agent that 0 switches off: None in a configuration file means
# the value of the agent's preset.
_CAN_BE_OFF = ("lstm_size", "max_abs_reward", "max_gradient_norm")


def _field(
  meaning: str, allowed: Any = None, *, per_host: bool = False, **default: Any
) -> Any:
  """Returns a field of a run.

  Args:
    meaning: what the field is.
    allowed: has `check(name, value)`, which raises FieldError.
    per_host: whether the hosts of a run may differ in it.
    **default: if a configuration sets the field, its `default` there; a type
      stands for a value that is unset.
  """
  return dataclasses.field(metadata={
    "meaning": meaning, "allowed": allowed, "per_host": per_host, **default
  })


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A run, as every process of it gets it.

  A field `evaluation_X` is `evaluation.X` in the configuration.
  """

  config: acme_stac.STACConfig = _field("the agent's hyperparameters")
  environment_options: dict[str, Any] = _field(
    "options of the environment, for training and evaluation"
  )
  environment_spec: environments.EnvironmentSpec = _field(
    "specs of one environment"
  )
  workdir: pathlib.Path = _field("directory of the run")
  num_actors: int = _field("number of actors", _COUNT, per_host=True)
  agent: str = _field("name of the agent's preset", default="stacx")
  environment: str = _field("name of the environment", default=str)
  networks: str | None = _field(
    "factory of the networks, as python:MODULE:FACTORY; None for"
    " `acme_stac.make_networks`", default=str
  )
  seed: int = _field(
    "seed of every random number", IntegerRange(0, 2**31 - 1), default=0
  )
  environments_per_actor: int = _field(
    "environments that each actor steps in a batch", _COUNT, default=int
  )
  num_queues: int = _field("queues that actors share", _COUNT, default=1)
  evaluation_every_steps: int = _field(
    "environment steps between evaluations", _COUNT, default=100_000
  )
  evaluation_episodes: int = _field(
    "episodes of an evaluation; 0 for no evaluator", IntegerRange(0, 2**63),
    default=10,
  )
  evaluation_max_episode_steps: int = _field(
    "actions after which an episode of an evaluation is cut off", _COUNT,
    default=MAX_EPISODE_STEPS,
  )
  evaluation_greedy: bool = _field(
    "evaluate the most probable actions instead of samples", default=False
  )
  checkpoint_every_seconds: float = _field(
    "time between checkpoints", _SECONDS, default=60.0, per_host=True
  )
  checkpoint_every_updates: int = _field(
    "updates between checkpoints; whichever is sooner", _COUNT, default=10_000,
    per_host=True,
  )
  checkpoints_to_keep: int = _field(
    "number of newest checkpoints to keep", _COUNT, default=3, per_host=True
  )
  checkpoints_keep_one_in: int = _field(
    "one in so many checkpoints is never deleted", _COUNT, default=60,
    per_host=True,
  )
  environment_timeout_seconds: float = _field(
    "how long a reset or a step may take", _SECONDS, default=300.0,
    per_host=True,
  )
  patience_seconds: float = _field(
    "how long to wait for a silent node", _SECONDS, default=1800.0,
    per_host=True,
  )
  log_every_seconds: float = _field(
    "least time between rows of a log", _SECONDS, default=1.0, per_host=True
  )
  wandb_project: str | None = _field(
    "Weights & Biases project that learner and evaluator log to as well",
    default=str, per_host=True,
  )

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
    """Makes the networks from specs and `config`."""
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

  def check_ranges(self):
    """Raises FieldError for a field that is out of its range."""
    for field in dataclasses.fields(self):
      if field.metadata["allowed"] is not None:
        field.metadata["allowed"].check(field.name, getattr(self, field.name))

  def to_json(self) -> dict[str, Any]:
    """Returns the contents of config.json, as they are read back.

    Raises:
      TypeError: if an option of the environment has no form in JSON.
    """
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if field.name not in ("config", "environment_spec", "workdir")
    }
    return json.loads(json.dumps({
      **fields,
      "environment_spec": environments.spec_to_json(self.environment_spec),
      "config": dataclasses.asdict(self.config),
    }))


_SETTINGS = {
  field.name: field.metadata["default"]
  for field in dataclasses.fields(Experiment)
  if "default" in field.metadata
}


def base_config(domain: str, environment: str) -> ml_collections.ConfigDict:
  """Returns a configuration with every field and its default.

  Fields under `stac` override those of `acme_stac.STACConfig`: None keeps the
  value of the agent's preset, and 0 switches off what can be switched off.

  Args:
    domain: name of the preset of the environment's kind.
    environment: name of the environment.
  """
  fields: dict[str, Any] = {"evaluation": {}}
  for name, default in _SETTINGS.items():
    if isinstance(default, type):
      default = config_dict.placeholder(default)
    if name.startswith("evaluation_"):
      fields["evaluation"][name.removeprefix("evaluation_")] = default
    else:
      fields[name] = default
  return ml_collections.ConfigDict({
    **fields,
    "domain": domain,
    "environment": environment,
    "environment_options": {
      name: config_dict.placeholder(option_type)
      for name, option_type in environments.option_types(environment).items()
    },
    "num_environment_steps": config_dict.placeholder(int),
    "stac": {
      name: config_dict.placeholder(plain_type(hint))
      for name, hint in typing.get_type_hints(acme_stac.STACConfig).items()
      # A field of the run.
      if name != "num_environment_steps"
    },
  })


def describe(
  config: ml_collections.ConfigDict,
  num_actors: int,
  workdir: str,
  probe: environments.BatchedEnvironment | on_device.Environment,
) -> Experiment:
  """Describes the run of a configuration; `validation` also checks it.

  Args:
    config: a configuration with the fields of `base_config`.
    num_actors: number of actors.
    workdir: directory of the run.
    probe: the configuration's environment, for its specs. If it is in JAX, a
      whole batch of environments steps together by default.

  Raises:
    ValueError: if the agent's configuration is wrong.
    FieldError: (a ValueError) if fields of it are out of range.
  """
  spec = environments.environment_spec(probe)
  overrides = agent_overrides(config)
  overrides.setdefault("action_repeat", probe.action_repeat)
  agent = acme_stac.make_config(config.agent, config.domain, spec, **overrides)
  given = dict(config.items()) | {
    f"evaluation_{name}": value for name, value in config.evaluation.items()
  }
  if given["environments_per_actor"] is None:
    most = agent.batch_size if isinstance(probe, on_device.Environment) else 16
    given["environments_per_actor"] = max(
      n for n in range(1, most + 1) if agent.batch_size % n == 0
    )
  return Experiment(
    config=agent,
    environment_options=environment_options(config),
    environment_spec=spec,
    workdir=pathlib.Path(workdir).expanduser().absolute(),
    num_actors=num_actors,
    **{name: given[name] for name in _SETTINGS},
  )


def agent_overrides(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the fields of STACConfig that a configuration sets."""
  given = {
    **config.stac, "num_environment_steps": config.num_environment_steps
  }
  return {
    name: None if name in _CAN_BE_OFF and value == 0 else value
    for name, value in given.items()
    if value is not None
  }


def environment_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the options of the environment that a configuration sets."""
  return {
    name: value
    for name, value in config.environment_options.items()
    if value is not None
  }


def flag_of(path: str) -> str:
  """Returns the flag that sets a field.

  Args:
    path: path of the field in config.json, for example "config.discount", or
      the name of a field of STACConfig. A field without a flag is returned as
      it is.
  """
  path = path.removeprefix("config.")
  first = path.partition(".")[0]
  if first == "environment_spec":
    return path
  if first == "num_actors":
    return "--num_actors"
  if first == "num_environment_steps":
    return f"--config.{path}"
  if first in typing.get_type_hints(acme_stac.STACConfig):
    return f"--config.stac.{path}"
  if path.startswith("evaluation_"):
    return f"--config.evaluation.{path.removeprefix('evaluation_')}"
  return f"--config.{path}"


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
  """Returns the changes between two `to_json`, as flags with their values."""
  if isinstance(old, dict) and isinstance(new, dict):
    changes = []
    for name in sorted(old.keys() | new.keys()):
      changes += differences(
        old.get(name), new.get(name), f"{prefix}.{name}" if prefix else name
      )
    return changes
  return [] if old == new else [f"{flag_of(prefix)}: {old!r} -> {new!r}"]


def host_differences(
  theirs: dict[str, Any], ours: dict[str, Any]
) -> list[str]:
  """Returns the differences between two hosts' runs that are not allowed.

  Args:
    theirs: `to_json` of the learner's host.
    ours: `to_json` of this host.
  """
  own = {
    field.name
    for field in dataclasses.fields(Experiment)
    if field.metadata["per_host"]
  }

  def shared(run: dict[str, Any]) -> dict[str, Any]:
    return {
      **{name: value for name, value in run.items() if name not in own},
      # The learner ends the run; a host that waits for it may have been
      # started with another budget.
      "config": {**run["config"], "num_environment_steps": None},
    }

  return differences(shared(theirs), shared(ours))
