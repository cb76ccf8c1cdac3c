"""The description of a run on a cluster, checked field by field.

Errors in it are reported here, or by the engine's module, before anything is
submitted. docs/cloud.md explains every field.
"""

import dataclasses
import re
from collections.abc import Mapping

from acme_stac.checks import Choice, check_integer, unknown

# First port of the learner's host; the others follow. Actors listen on none.
PORT = 7070
LEARNER = "learner"

_MEMORY = re.compile(r"([1-9]\d*)(Mi|Gi|Ti)")
_BYTES = {"Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|PRIVATE|API_?KEY")
# Flags of programs.train that the launcher sets.
_OUR_FLAGS = (
  "cluster", "host", "launch", "num_actors", "terminal", "workdir",
  "config.num_queues",
)
# Limits of programs.train --launch=hosts.
_MAX_QUEUES = 64
_MAX_ACTORS_PER_HOST = 1000


@dataclasses.dataclass(frozen=True)
class AcceleratorKind:
  """The engines' names of an accelerator; None where an engine has none.

  Attributes:
    gke: value of GKE's node label.
    xmanager: name in XManager's requirements, if XManager 0.8.5 knows a machine
      of Vertex AI with it.
    topologies: of a TPU: single-host topology -> number of chips.
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
    count: number per host; for a TPU, its chips (v2 and v3: cores).
    topology: of a TPU on Kubernetes, for example "2x2".
  """

  type: str
  count: int = 1
  topology: str | None = None

  def __post_init__(self):
    if self.type not in ACCELERATORS:
      raise ValueError(unknown("type", self.type, ACCELERATORS))
    check_integer("count", self.count, 1)
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
    """The engines' names of its type."""
    return ACCELERATORS[self.type]

  @property
  def is_tpu(self) -> bool:
    """Whether this is a TPU, rather than a GPU."""
    return self.kind.topologies is not None


@dataclasses.dataclass(frozen=True)
class NodeGroup:
  """A group of identical hosts.

  Attributes:
    cpu: virtual CPUs of each host.
    memory: of each host, for example "16Gi".
    hosts: number of hosts; 1 for the learner.
    image: container image, if not the run's.
    accelerator: of each host; only the learner uses one.
    spot: whether the provider may withdraw hosts, for a lower price.
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
    check_integer("cpu", self.cpu, 1)
    check_integer("hosts", self.hosts, 1)
    _check_text("memory", self.memory, _MEMORY, "a number of Mi, Gi or Ti")
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
    size: of the claim to make, for example "20Gi"; None if the claim exists.
    storage_class: of the claim to make, if not the cluster's default.
  """

  claim: str
  size: str | None = None
  storage_class: str | None = None

  def __post_init__(self):
    _check_object("claim", self.claim)
    if self.size is not None:
      _check_text("size", self.size, _MEMORY, "a number of Mi, Gi or Ti")
    elif self.storage_class is not None:
      raise ValueError("storage_class without size: no claim is made.")


@dataclasses.dataclass(frozen=True)
class Secret:
  """An environment variable from a Kubernetes Secret.

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
  """Settings for Kubernetes.

  Attributes:
    storage: the volume of the learner's work directory.
    namespace: of all objects; must exist.
    provider: "gke" to select accelerators and spot nodes by GKE's labels; "any"
      to select them by `node_selector` alone.
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
    Choice(any="", gke="").check("provider", self.provider)
    check_integer("restarts", self.restarts, 0)
    for name in self.image_pull_secrets:
      _check_object("image_pull_secrets", name)


@dataclasses.dataclass(frozen=True)
class Vertex:
  """Settings for Vertex AI.

  Attributes:
    project: the Google Cloud project.
    location: region, for example "europe-west4".
    workdir: the learner's work directory, gs://BUCKET/PATH.
  """

  project: str
  location: str
  workdir: str

  def __post_init__(self):
    _check_text(
      "workdir", self.workdir, r"gs://[a-z0-9][-_.a-z0-9]+/\S+",
      "gs://BUCKET/PATH",
    )

  @property
  def bucket(self) -> str:
    """Name of the bucket."""
    return self.workdir.removeprefix("gs://").partition("/")[0]

  @property
  def mounted_workdir(self) -> str:
    """The work directory in Vertex AI's mount of the bucket."""
    return "/gcs/" + self.workdir.removeprefix("gs://").rstrip("/")


@dataclasses.dataclass(frozen=True)
class Run:
  """A run on a cluster.

  Attributes:
    name: of the run and, with a suffix, of all its objects.
    image: container image with a tag or digest.
    train: arguments of programs.train, for example
      "--config=configs/atari.py:pong".
    actors_per_host: actor processes on each host of actors.
    nodes: "learner", and one or more groups of actors by any name.
    queues: Reverb nodes on the learner's host that share the trajectories.
    environment: environment variables of every host; no secrets.
    kubernetes: settings for Kubernetes, if it is launched there.
    vertex: settings for Vertex AI, if it is launched there.
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
    check_integer(
      "actors_per_host", self.actors_per_host, 1, _MAX_ACTORS_PER_HOST
    )
    check_integer("queues", self.queues, 1, _MAX_QUEUES)
    self._check_train()
    self._check_nodes()
    for name in self.environment:
      _check_variable(name)
      if _SECRET.search(name.upper()):
        raise ValueError(
          f"environment: {name} looks like a secret, and would be readable in"
          " the job's description. Put it in a Kubernetes Secret, and name that"
          " in kubernetes.secrets."
        )

  def _check_train(self):
    for argument in self.train:
      flag = argument.lstrip("-").partition("=")[0]
      if not argument.startswith("--"):
        raise ValueError(f"train: write {argument!r} as --FLAG=VALUE.")
      if flag in _OUR_FLAGS:
        raise ValueError(f"train: --{flag} is set by the launcher.")

  def _check_nodes(self):
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
    """Name of the pool in CLUSTER_SPEC -> name of the group."""
    names = [LEARNER, *self.actors]
    return {f"workerpool{i}": name for i, name in enumerate(names)}

  @property
  def num_actors(self) -> int:
    """Number of actor processes on all hosts."""
    hosts = sum(group.hosts for group in self.actors.values())
    return hosts * self.actors_per_host

  @property
  def ports(self) -> dict[str, int]:
    """Ports of the learner's host, by the name of the node."""
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
      # Without this, JAX would continue on the CPU if the accelerator does not
      # start, for example because the image lacks its packages.
      platform = "tpu" if group.accelerator.is_tpu else "cuda"
      variables["JAX_PLATFORMS"] = f"{platform},cpu"
    return {**variables, **self.environment}


def _check_text(
  name: str, value: str, pattern: str | re.Pattern[str], meaning: str
):
  if not re.fullmatch(pattern, value):
    raise ValueError(f"{name} must be {meaning}, got {value!r}.")


def _check_name(name: str, value: str):
  # Two names and a number make the name of a host, at most 63 characters.
  _check_text(
    name, value, r"(?=.{1,30}$)[a-z]([-a-z0-9]*[a-z0-9])?",
    "at most 30 lower-case letters, digits and -, beginning with a letter",
  )


def _check_object(name: str, value: str):
  _check_text(
    name, value, r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?",
    "the name of a Kubernetes object: lower-case letters, digits, - and dots",
  )


def _check_variable(name: str):
  _check_text("variable", name, r"[A-Za-z_][A-Za-z0-9_]*",
              "the name of an environment variable")
  if name in ("CLUSTER_SPEC", "JOB_COMPLETION_INDEX"):
    raise ValueError(f"{name} is set by the engine.")


def _check_image(image: str):
  # After the last slash: a registry's address may have a port.
  tag = image.rpartition("/")[2].partition(":")[2]
  if "@sha256:" not in image and tag in ("", "latest"):
    raise ValueError(
      f"image {image!r} needs a tag (not latest) or a digest: a restarted host"
      " must get the same code."
    )
