"""A run on a cluster as data: a YAML file, read and checked.

Everything that can be wrong with a description is found here or by the module
of the engine, before anything is submitted. docs/cloud.md says what every field
means.
"""

import collections.abc
import dataclasses
import json
import pathlib
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import yaml

from acme_stac.checks import unknown
from programs.run.errors import UserError

# The learner's host listens on this one and those behind it. Nothing else
# listens anywhere.
PORT = 7070
LEARNER = "learner"

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MEMORY = re.compile(r"([1-9]\d*)(Mi|Gi|Ti)")
_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|API_?KEY")
# Flags of programs.train that say where it runs: the launcher's to set.
_OUR_FLAGS = (
  "cluster", "host", "launch", "num_actors", "terminal", "workdir",
  "config.num_queues",
)
_MAX_QUEUES = 64
# Of programs.train --launch=hosts.
_MAX_ACTORS_PER_HOST = 1000
# What a single environment variable may hold, on Linux: 128 KiB.
_MAX_CLUSTER_BYTES = 100_000


@dataclasses.dataclass(frozen=True)
class AcceleratorKind:
  """What the engines call an accelerator; None where one does not have it.

  Attributes:
    gke: value of GKE's node label.
    xmanager: the name in XManager's requirements, of those for which XManager
      0.8.5 finds a machine that Vertex AI has.
    topologies: of a TPU, those that are one host, with their chips.
  """

  gke: str | None
  xmanager: str | None
  topologies: Mapping[str, int] | None = None


_UP_TO_8 = {"1x1": 1, "2x2": 4, "2x4": 8}
ACCELERATORS: Mapping[str, AcceleratorKind] = {
  "p100": AcceleratorKind("nvidia-tesla-p100", "p100"),
  "v100": AcceleratorKind("nvidia-tesla-v100", "v100"),
  "t4": AcceleratorKind("nvidia-tesla-t4", "t4"),
  "l4": AcceleratorKind("nvidia-l4", "l4_24th"),
  "a100": AcceleratorKind("nvidia-tesla-a100", "a100"),
  "a100_80gb": AcceleratorKind("nvidia-a100-80gb", None),
  "h100": AcceleratorKind("nvidia-h100-80gb", None),
  "h200": AcceleratorKind("nvidia-h200-141gb", None),
  # Vertex AI counts the cores of these, eight to a host.
  "tpu_v2": AcceleratorKind(None, "tpu_v2", {}),
  "tpu_v3": AcceleratorKind(None, "tpu_v3", {}),
  "tpu_v4": AcceleratorKind("tpu-v4-podslice", None, {"2x2x1": 4}),
  "tpu_v5e": AcceleratorKind("tpu-v5-lite-podslice", None, _UP_TO_8),
  "tpu_v5p": AcceleratorKind("tpu-v5p-slice", None, {"2x2x1": 4}),
  "tpu_v6e": AcceleratorKind("tpu-v6e-slice", None, _UP_TO_8),
}


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """Accelerators of a host.

  Attributes:
    type: a name in `ACCELERATORS`.
    count: how many a host has; chips of a TPU (cores for v2 and v3).
    topology: of a TPU on Kubernetes, for example "2x2".
  """

  type: str
  count: int = 1
  topology: str | None = None

  def __post_init__(self):
    if self.type not in ACCELERATORS:
      raise ValueError(unknown("type", self.type, ACCELERATORS))
    _check_at_least("count", self.count, 1)
    topologies = self.kind.topologies
    if self.topology is None:
      if topologies:
        raise ValueError(
          f"topology is missing: {self.type} has"
          f" {', '.join(topologies)} on one host."
        )
    elif not topologies:
      raise ValueError(f"{self.type} takes no topology.")
    elif self.topology not in topologies:
      raise ValueError(
        f"topology {self.topology!r} is not a {self.type} on one host, which"
        f" the learner is: {', '.join(topologies)}."
      )
    elif self.count != topologies[self.topology]:
      raise ValueError(
        f"count is {self.count}, but topology {self.topology} has"
        f" {topologies[self.topology]} chips."
      )

  @property
  def kind(self) -> AcceleratorKind:
    """What the engines call it."""
    return ACCELERATORS[self.type]

  @property
  def is_tpu(self) -> bool:
    """Whether this is a TPU, and else a GPU."""
    return self.kind.topologies is not None


@dataclasses.dataclass(frozen=True)
class NodeGroup:
  """Hosts that are alike.

  Attributes:
    cpu: virtual CPUs of each.
    memory: of each, for example "16Gi".
    hosts: how many; the learner is one.
    image: container image, if not the run's.
    accelerator: of each; only the learner uses one.
    spot: whether they may be taken away at any time, at a lower price.
    node_selector: labels that their nodes must have (Kubernetes).
  """

  cpu: int
  memory: str
  hosts: int = 1
  image: str | None = None
  accelerator: Accelerator | None = None
  spot: bool = False
  node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    _check_at_least("cpu", self.cpu, 1)
    _check_at_least("hosts", self.hosts, 1)
    _check_size("memory", self.memory)
    if self.image is not None:
      _check_image(self.image)

  @property
  def memory_bytes(self) -> int:
    """Memory of a host in bytes."""
    number, unit = _MEMORY.fullmatch(self.memory).groups()  # type: ignore[union-attr]
    return int(number) * _BYTES[unit]


@dataclasses.dataclass(frozen=True)
class Storage:
  """The volume of the learner's work directory on Kubernetes.

  Attributes:
    claim: name of the PersistentVolumeClaim.
    size: for example "20Gi", and the claim is made; without, it must be there.
    storage_class: of a claim that is made, if not the cluster's default.
  """

  claim: str
  size: str | None = None
  storage_class: str | None = None

  def __post_init__(self):
    _check_object("claim", self.claim)
    if self.size is not None:
      _check_size("size", self.size)
    elif self.storage_class is not None:
      raise ValueError("storage_class without size: no claim is made then.")


@dataclasses.dataclass(frozen=True)
class Secret:
  """An environment variable whose value only the cluster knows.

  Attributes:
    variable: name of the variable.
    secret: name of the Kubernetes Secret.
    key: key in it.
  """

  variable: str
  secret: str
  key: str

  def __post_init__(self):
    _check_variable(self.variable)
    _check_object("secret", self.secret)


@dataclasses.dataclass(frozen=True)
class Kubernetes:
  """What only Kubernetes needs to know.

  Attributes:
    storage: the volume of the learner's work directory.
    namespace: where everything is made; it must be there.
    provider: whose labels choose accelerators and spot nodes: "gke", or "any"
      for none but those of `node_selector`.
    restarts: how often a host that failed by itself is started again.
    secrets: environment variables from Secrets.
    image_pull_secrets: names of Secrets to pull the image with.
  """

  storage: Storage
  namespace: str = "default"
  provider: str = "any"
  restarts: int = 100
  secrets: tuple[Secret, ...] = ()
  image_pull_secrets: tuple[str, ...] = ()

  def __post_init__(self):
    _check_object("namespace", self.namespace)
    if self.provider not in ("any", "gke"):
      raise ValueError(unknown("provider", self.provider, ("any", "gke")))
    _check_at_least("restarts", self.restarts, 0)
    for name in self.image_pull_secrets:
      _check_object("image_pull_secrets", name)


@dataclasses.dataclass(frozen=True)
class Vertex:
  """What only Vertex AI needs to know.

  Attributes:
    project: the Google Cloud project.
    location: region, for example "europe-west4".
    workdir: the learner's work directory, gs://BUCKET/PATH.
  """

  project: str
  location: str
  workdir: str

  def __post_init__(self):
    if not re.fullmatch(r"gs://[a-z0-9][-_.a-z0-9]+/\S+", self.workdir):
      raise ValueError(
        f"workdir must be gs://BUCKET/PATH, got {self.workdir!r}."
      )

  @property
  def bucket(self) -> str:
    """Name of the bucket."""
    return self.workdir.removeprefix("gs://").partition("/")[0]

  @property
  def mounted_workdir(self) -> str:
    """The work directory where Vertex AI mounts buckets."""
    return "/gcs/" + self.workdir.removeprefix("gs://").rstrip("/")


@dataclasses.dataclass(frozen=True)
class Run:
  """A run on a cluster.

  Attributes:
    name: of the run and, with a suffix, of everything that is made for it.
    image: container image with a tag or digest.
    train: arguments of programs.train, for example
      "--config=configs/atari.py:pong".
    actors_per_host: actor processes on each host of actors.
    nodes: "learner", and one or more groups of actors by any name.
    queues: Reverb nodes on the learner's host that share the trajectories.
    environment: environment variables of every host; no secrets.
    kubernetes: needed to launch there.
    vertex: needed to launch there.
  """

  name: str
  image: str
  train: tuple[str, ...]
  actors_per_host: int
  nodes: Mapping[str, NodeGroup]
  queues: int = 1
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  kubernetes: Kubernetes | None = None
  vertex: Vertex | None = None

  def __post_init__(self):
    _check_name("name", self.name)
    _check_image(self.image)
    _check_at_least("actors_per_host", self.actors_per_host, 1)
    if self.actors_per_host > _MAX_ACTORS_PER_HOST:
      raise ValueError(
        f"actors_per_host must be at most {_MAX_ACTORS_PER_HOST}, got"
        f" {self.actors_per_host}."
      )
    _check_at_least("queues", self.queues, 1)
    if self.queues > _MAX_QUEUES:
      raise ValueError(
        f"queues must be at most {_MAX_QUEUES}, got {self.queues}."
      )
    for argument in self.train:
      flag = argument.lstrip("-").partition("=")[0]
      if not argument.startswith("--"):
        raise ValueError(f"train: write {argument!r} as --FLAG=VALUE.")
      if flag in _OUR_FLAGS:
        raise ValueError(f"train: --{flag} is set by the launcher.")
    if LEARNER not in self.nodes:
      raise ValueError(
        f"nodes: {LEARNER!r} is missing, got {', '.join(self.nodes) or 'none'}."
      )
    if self.learner.hosts != 1:
      raise ValueError("nodes.learner: hosts must be 1.")
    if not self.actors:
      raise ValueError("nodes: no group of actors besides the learner.")
    for name, group in self.actors.items():
      _check_name("nodes", name)
      if group.accelerator is not None:
        raise ValueError(f"nodes.{name}: actors use no accelerator.")
    for name in self.environment:
      _check_variable(name)
      if _SECRET.search(name.upper()):
        raise ValueError(
          f"environment: {name} looks like a secret, which would be readable in"
          " the job's description. Name a Kubernetes Secret that holds it in"
          " kubernetes.secrets."
        )

  @property
  def learner(self) -> NodeGroup:
    """The learner's host."""
    return self.nodes[LEARNER]

  @property
  def actors(self) -> dict[str, NodeGroup]:
    """The groups of actors, by name."""
    return {k: v for k, v in self.nodes.items() if k != LEARNER}

  @property
  def pools(self) -> dict[str, str]:
    """Name in the cluster's specification -> name of the group."""
    names = [LEARNER, *self.actors]
    return {f"workerpool{i}": name for i, name in enumerate(names)}

  @property
  def num_actors(self) -> int:
    """All actor processes."""
    hosts = sum(group.hosts for group in self.actors.values())
    return hosts * self.actors_per_host

  @property
  def ports(self) -> dict[str, int]:
    """The learner's host's ports by the names of what listens there."""
    more = [f"replay-{i}" for i in range(1, self.queues)]
    names = ["replay", "counter", "variables", *more]
    return {name: PORT + i for i, name in enumerate(names)}

  def image_of(self, group: NodeGroup) -> str:
    """Returns the image of a group's hosts."""
    return group.image or self.image

  def arguments(self, workdir: str) -> list[str]:
    """Returns the arguments of programs.train on a host."""
    return [
      "--launch=hosts",
      f"--num_actors={self.actors_per_host}",
      f"--workdir={workdir}",
      *[f"--config.num_queues={self.queues}"] * (self.queues > 1),
      *self.train,
    ]

  def environment_of(self, group: NodeGroup) -> dict[str, str]:
    """Returns the environment variables of a group's hosts."""
    variables = {}
    if group.accelerator is not None:
      # If the accelerator does not come up, say for want of its packages in the
      # image, this is an error then; else JAX would go on without it.
      platform = "tpu" if group.accelerator.is_tpu else "cuda"
      variables["JAX_PLATFORMS"] = f"{platform},cpu"
    return {**variables, **self.environment}


def cluster_spec(hosts: Mapping[str, list[str]], pool: str) -> str:
  """Returns the value of CLUSTER_SPEC for the hosts of a pool.

  Args:
    hosts: pool -> its hosts.
    pool: whose hosts are told.

  Raises:
    ValueError: if there are more hosts than an environment variable can name.
  """
  spec = json.dumps({"cluster": hosts, "task": {"type": pool}})
  if len(spec) > _MAX_CLUSTER_BYTES:
    number = sum(map(len, hosts.values()))
    raise ValueError(
      f"nodes: {number} hosts are too many to be named in an environment"
      " variable. Use fewer, with more actors each."
    )
  return spec


def load(path: str) -> Run:
  """Reads a description.

  Raises:
    UserError: if there is no such file, or anything in it is wrong.
  """
  try:
    data = yaml.safe_load(pathlib.Path(path).read_text())
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(
      f"--config: {path} cannot be read ({reason})."
      " xm_launch/pong.yaml is an example."
    ) from error
  except yaml.YAMLError as error:
    raise UserError(f"{path}: {' '.join(str(error).split())}") from error
  try:
    return _read(Run, data, "")
  except ValueError as error:
    raise UserError(f"{path}: {error}") from error


def _read(hint: Any, value: Any, where: str) -> Any:
  """Returns a value of YAML as the type of a field.

  Raises:
    ValueError: if it is of another type, or its class refuses it.
  """
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is types.UnionType:
    return None if value is None else _read(arguments[0], value, where)
  if origin is tuple:
    _check_type(where, value, list, "a list")
    return tuple(
      _read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)
    )
  if origin is collections.abc.Mapping:
    _check_type(where, value, dict, "a mapping")
    for key in value:
      _check_type(f"{where}: name {key!r}", key, str, "text (put it in quotes)")
    return {
      key: _read(arguments[1], item, f"{where}.{key}")
      for key, item in value.items()
    }
  if dataclasses.is_dataclass(hint):
    return _read_fields(hint, value, where)
  allowed = {str: "text (put it in quotes)", int: "a whole number",
             bool: "true or false"}
  _check_type(where, value, hint, allowed[hint])
  return value


def _read_fields(cls: Any, data: Any, where: str) -> Any:
  """Returns an instance of a dataclass of this module."""
  prefix = f"{where}: " if where else ""
  _check_type(where or "the file", data, dict, "a mapping")
  fields = {field.name: field for field in dataclasses.fields(cls)}
  for name in data:
    if name not in fields:
      raise ValueError(prefix + unknown("field", name, fields))
  for name, field in fields.items():
    required = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if required and data.get(name) is None:
      raise ValueError(f"{prefix}{name} is missing.")
  hints = typing.get_type_hints(cls)
  values = {
    name: _read(hints[name], value, f"{where}.{name}" if where else name)
    for name, value in data.items()
    # A name with nothing behind it is as if it were not there.
    if value is not None
  }
  try:
    return cls(**values)
  except ValueError as error:
    raise ValueError(f"{prefix}{error}") from error


def _check_type(where: str, value: Any, allowed: type, text: str):
  # YAML's true is Python's True, which is an int.
  if not isinstance(value, allowed) or (
    isinstance(value, bool) and allowed is int
  ):
    raise ValueError(f"{where} must be {text}, got {value!r}.")


def _check_at_least(name: str, value: int, least: int):
  if value < least:
    raise ValueError(f"{name} must be at least {least}, got {value}.")


def _check_size(name: str, value: str):
  if not _MEMORY.fullmatch(value):
    raise ValueError(f"{name} must be a number of Mi, Gi or Ti, got {value!r}.")


def _check_name(name: str, value: str):
  if not _NAME.fullmatch(value) or len(value) > 50:
    raise ValueError(
      f"{name} {value!r} is no name: use small letters, digits and -, a letter"
      " first, at most 50."
    )


def _check_object(name: str, value: str):
  if not _OBJECT.fullmatch(value):
    raise ValueError(
      f"{name} {value!r} is no name of a Kubernetes object: small letters,"
      " digits, - and dots."
    )


def _check_variable(name: str):
  if not _VARIABLE.fullmatch(name):
    raise ValueError(f"{name!r} is no name of an environment variable.")
  if name in ("CLUSTER_SPEC", "JOB_COMPLETION_INDEX"):
    raise ValueError(f"{name} is set by the engine.")


def _check_image(image: str):
  # Behind the last slash, since a registry's address may have a port.
  last = image.rpartition("/")[2]
  tag = last.partition(":")[2]
  if "@sha256:" not in image and tag in ("", "latest"):
    raise ValueError(
      f"image {image!r} needs a tag (not latest) or a digest: a host that is"
      " started again must get the same code."
    )
