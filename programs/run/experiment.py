"""The description of a run: plain data, from a configuration file."""

import dataclasses
import json
import pathlib
import typing
from collections.abc import Callable
from typing import Any

import ml_collections
from ml_collections import config_dict

import acme_stac
from acme_stac import environments
from acme_stac.checks import plain_type
from acme_stac.environment_loop import MAX_EPISODE_STEPS

# Fields of the configuration that a run takes as they are.
_AS_THEY_ARE = (
  "agent", "environment", "networks", "seed", "num_queues",
  "checkpoint_every_seconds", "checkpoint_every_updates", "checkpoints_to_keep",
  "checkpoints_keep_one_in", "environment_timeout_seconds", "patience_seconds",
  "log_every_seconds", "wandb_project",
)
_EVALUATION = ("every_steps", "episodes", "max_episode_steps", "greedy")
# Fields in which the hosts of a run may differ.
_OF_A_HOST = (
  "num_actors", "wandb_project", "checkpoint_every_seconds",
  "checkpoint_every_updates", "checkpoints_to_keep", "checkpoints_keep_one_in",
  "environment_timeout_seconds", "patience_seconds", "log_every_seconds",
)
# Fields of the agent that 0 switches off: None in a configuration file means
# the value of the agent's preset.
_CAN_BE_OFF = ("lstm_size", "max_abs_reward", "max_gradient_norm")


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A run, as every process of it gets it.

  Attributes:
    agent: name of the agent preset.
    config: the agent's hyperparameters.
    environment: name of the environment.
    environment_options: options of the environment, for training and
      evaluation.
    environment_spec: specs of one environment.
    networks: factory of the networks, as python:<module>:<factory>; None for
      `acme_stac.make_networks`.
    seed: seed of every random number.
    num_actors: actor processes.
    environments_per_actor: environments that each actor steps.
    num_queues: queues that the actors share.
    evaluation_every_steps: environment steps between evaluations.
    evaluation_episodes: episodes of an evaluation; 0 for no evaluator.
    evaluation_max_episode_steps: actions after which an episode of an
      evaluation is cut off.
    evaluation_greedy: evaluate the most probable actions instead of samples.
    checkpoint_every_seconds: time between checkpoints.
    checkpoint_every_updates: updates between checkpoints; whichever is sooner.
    checkpoints_to_keep: number of newest checkpoints that are kept.
    checkpoints_keep_one_in: one in so many checkpoints is never deleted.
    environment_timeout_seconds: how long a reset or a step may take.
    patience_seconds: how long to wait for a silent node.
    log_every_seconds: least time between rows of a log.
    wandb_project: Weights & Biases project for the logs of learner and
      evaluator, in addition to the files; None for none.
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

  def to_json(self) -> dict[str, Any]:
    """Returns the contents of config.json."""
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


def base_config(domain: str, environment: str) -> ml_collections.ConfigDict:
  """Returns a configuration with every field and its default.

  Fields under `stac` override those of `acme_stac.STACConfig`: None keeps the
  value of the agent's preset, and 0 switches off what can be switched off.

  Args:
    domain: name of the preset of the environment's kind.
    environment: name of the environment.
  """
  overrides = {
    name: config_dict.placeholder(plain_type(hint))
    for name, hint in typing.get_type_hints(acme_stac.STACConfig).items()
    # A field of the run, see below.
    if name != "num_environment_steps"
  }
  return ml_collections.ConfigDict({
    "agent": "stacx",
    "domain": domain,
    "environment": environment,
    "environment_options": {
      name: config_dict.placeholder(option_type)
      for name, option_type in environments.option_types(environment).items()
    },
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


def describe(
  config: ml_collections.ConfigDict,
  num_actors: int,
  workdir: str,
  probe: environments.BatchedEnvironment,
) -> Experiment:
  """Describes the run of a configuration.

  `validation.make_experiment` checks it as well.

  Args:
    config: a configuration with the fields of `base_config`.
    num_actors: actor processes.
    workdir: directory of the run.
    probe: the configuration's environment, for its specs.

  Raises:
    ValueError: if the agent's configuration is wrong.
    FieldError: (a ValueError) if fields of it are out of range.
  """
  spec = environments.environment_spec(probe)
  overrides = agent_overrides(config)
  overrides.setdefault("action_repeat", probe.action_repeat)
  agent = acme_stac.make_config(config.agent, config.domain, spec, **overrides)
  environments_per_actor = config.environments_per_actor
  if environments_per_actor is None:
    environments_per_actor = max(
      n for n in range(1, 17) if agent.batch_size % n == 0
    )
  return Experiment(
    config=agent,
    environment_options=environment_options(config),
    environment_spec=spec,
    num_actors=num_actors,
    environments_per_actor=environments_per_actor,
    workdir=pathlib.Path(workdir).expanduser().absolute(),
    **{name: config[name] for name in _AS_THEY_ARE},
    **{f"evaluation_{name}": config.evaluation[name] for name in _EVALUATION},
  )


def agent_overrides(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the fields of STACConfig that a configuration sets."""
  overrides: dict[str, Any] = {}
  for name, value in config.stac.items():
    if value is None:
      continue
    is_off = name in _CAN_BE_OFF and value == 0
    overrides[name] = None if is_off else value
  if config.num_environment_steps is not None:
    overrides["num_environment_steps"] = config.num_environment_steps
  return overrides


def environment_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the options of the environment that a configuration sets."""
  return {
    name: value
    for name, value in config.environment_options.items()
    if value is not None
  }


def write_config(experiment: Experiment):
  """Writes config.json, whole or not at all.

  Raises:
    OSError: if it cannot be written.
  """
  path = experiment.workdir / "config.json"
  temporary = path.with_suffix(".tmp")
  temporary.write_text(json.dumps(to_plain(experiment), indent=2) + "\n")
  temporary.replace(path)


def to_plain(experiment: Experiment) -> dict[str, Any]:
  """Returns the contents of config.json, as they will be read back."""
  return json.loads(json.dumps(experiment.to_json()))


def flag_of(path: str) -> str:
  """Returns the flag that sets a field.

  Args:
    path: path of the field in config.json, for example "config.discount", or
      the name of a field of STACConfig. A field without a flag is returned as
      it is.
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
  """Returns the differences between two hosts' runs that must not be.

  Args:
    theirs: `to_json` of the learner's host.
    ours: `to_json` of this host.
  """
  return differences(_of_all_hosts(theirs), _of_all_hosts(ours))


def _of_all_hosts(run: dict[str, Any]) -> dict[str, Any]:
  plain = json.loads(json.dumps(run))
  for name in _OF_A_HOST:
    del plain[name]
  # The learner ends the run; a host that waits for it may know an older budget.
  del plain["config"]["num_environment_steps"]
  return plain
