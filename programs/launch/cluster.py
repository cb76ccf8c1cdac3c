"""The hosts of a run, in the form of Launchpad's CLUSTER_SPEC.

Launchpad's cloud launch tells every process where the others are by the
environment variable CLUSTER_SPEC, which Vertex AI sets:

  {"cluster": {"workerpool0": ["10.0.0.1:7070"],
               "workerpool1": ["10.0.0.2", "10.0.0.3"]},
   "task": {"type": "workerpool1", "index": 0}}

The one entry of workerpool0 is the learner's host: learner, evaluator, queue,
counter and variable server. All others are hosts of actors. A file of the same
form (YAML, so JSON too) does for hosts that nobody tells.
"""

import dataclasses
import os
import pathlib
import re
import reprlib
import socket
from collections.abc import Mapping
from typing import Any

import psutil
import yaml

from acme_stac.checks import unknown
from programs.run.errors import UserError

_LEARNER_POOL = "workerpool0"
_DEFAULT_PORT = 7070
# On the learner's host, which alone listens, from its port on. Further queues
# come behind them.
PORTS = ("replay", "counter", "variables")
# Indices of a host's actors begin at its number times this.
_ACTORS_PER_HOST = 1000
_MAX_BYTES = 2**17
_POOL = re.compile(r"workerpool[0-9]{1,9}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_FORM = (
  'It has the form {"cluster": {"workerpool0": ["learner.host:7070"],'
  ' "workerpool1": ["actor.host", ...]}}; docs/operations.md has examples.'
)


@dataclasses.dataclass(frozen=True)
class Cluster:
  """The hosts of a run, and which of them this one is.

  Attributes:
    learner_host: where everything but the actors is.
    port: the first of the ports there; their order is that of `PORTS`.
    actor_hosts: hosts of actors.
    actors_per_host: actors on each of them.
    index: which of `actor_hosts` this is; None on the learner's.
  """

  learner_host: str
  port: int
  actor_hosts: tuple[str, ...]
  actors_per_host: int
  index: int | None

  @property
  def is_learner_host(self) -> bool:
    """Whether this is the learner's host."""
    return self.index is None

  @property
  def host(self) -> str:
    """This host."""
    if self.index is None:
      return self.learner_host
    return self.actor_hosts[self.index]

  @property
  def groups(self) -> frozenset[str]:
    """Groups of the program's nodes that run on this host."""
    if self.is_learner_host:
      return frozenset({*PORTS, "learner", "evaluator"})
    return frozenset({"actor"})

  @property
  def actors(self) -> range:
    """Indices of this host's actors, which no other host has."""
    if self.index is None:
      return range(0)
    first = self.index * _ACTORS_PER_HOST
    return range(first, first + self.actors_per_host)

  @property
  def num_actors(self) -> int:
    """Actors of the whole run."""
    return len(self.actor_hosts) * self.actors_per_host

  def ports(self, num_queues: int) -> range:
    """Returns the ports of the learner's host in a run of so many queues."""
    return range(self.port, self.port + len(PORTS) + num_queues - 1)

  def describe(self, num_queues: int) -> str:
    """Returns what this host is, in a run of so many queues."""
    if self.is_learner_host:
      return (
        f"the learner's host, {self.host}; it listens on ports {self.port} to"
        f" {self.ports(num_queues)[-1]} for actors of"
        f" {', '.join(self.actor_hosts)}"
      )
    return (
      f"a host of actors, {self.host}; the learner's is"
      f" {self.learner_host}:{self.port}"
    )

  def address(self, group: str, number: int = 0) -> str:
    """Returns where a node listens.

    Args:
      group: one of `PORTS`.
      number: which of the group.
    """
    offset = PORTS.index(group) + (len(PORTS) - 1 + number) * bool(number)
    # Its own name may not lead a host to itself.
    host = "localhost" if self.is_learner_host else self.learner_host
    return f"{host}:{self.port + offset}"


def read(
  path: str | None, host: str | None, actors_per_host: int
) -> Cluster:
  """Reads which hosts there are.

  Args:
    path: of a cluster file; CLUSTER_SPEC of the environment if None.
    host: which entry this host is. If None, what the `task` says; its index may
      come from JOB_COMPLETION_INDEX, which Kubernetes sets. If there is no task
      either, the entry that is an address or name of this machine.
    actors_per_host: actors on each host of actors.

  Raises:
    UserError: if there is no such file or variable, it has another form, or
      this host is not in it.
  """
  if path is None:
    source, text = "CLUSTER_SPEC", os.environ.get("CLUSTER_SPEC")
    if text is None:
      raise UserError(
        "--launch=hosts needs --cluster=FILE, or CLUSTER_SPEC in the"
        f" environment. {_FORM}"
      )
  else:
    source = path
    try:
      text = _read_text(pathlib.Path(path))
    except (OSError, ValueError) as error:
      raise UserError(f"--cluster: {error}") from error
  try:
    spec = yaml.load(text, _Loader)  # noqa: S506 (it is a SafeLoader)
  except RecursionError as error:
    raise UserError(f"{source} is nested too deeply. {_FORM}") from error
  except Exception as error:  # Tags with odd values raise anything.
    problem = " ".join(str(error).split())
    raise UserError(f"{source} is not YAML: {problem}. {_FORM}") from error
  try:
    return _parse(spec, host, actors_per_host)
  except ValueError as error:
    raise UserError(f"{source}: {error}") from error


class _Loader(yaml.SafeLoader):
  """Reads YAML without merge keys, which a few lines can make endless."""

  def flatten_mapping(self, node: yaml.MappingNode):
    """Leaves the keys as they are."""


def _read_text(path: pathlib.Path) -> str:
  """Returns a file's text; raises OSError or ValueError if there is none."""
  if path.exists() and not path.is_file() and not path.is_dir():
    # A pipe may never have an end.
    raise ValueError(
      f"{path} is not a regular file. CLUSTER_SPEC in the environment takes"
      " what a program writes."
    )
  with path.open("rb") as file:
    content = file.read(_MAX_BYTES + 1)
  if len(content) > _MAX_BYTES:
    raise ValueError(f"{path} is larger than {_MAX_BYTES:,} bytes. {_FORM}")
  try:
    return content.decode()
  except UnicodeDecodeError as error:
    raise ValueError(f"{path} is not text: {error}. {_FORM}") from error


def _parse(spec: Any, host: str | None, actors_per_host: int) -> Cluster:
  if not isinstance(spec, Mapping) or not isinstance(
    spec.get("cluster"), Mapping
  ):
    raise ValueError(f"there is no 'cluster'. {_FORM}")
  pools = {}
  for name, entries in spec["cluster"].items():
    if not isinstance(name, str) or not _POOL.fullmatch(name):
      raise ValueError(
        f"pools are called workerpool0, workerpool1, …, not {_short(name)}."
      )
    if not isinstance(entries, list) or not entries:
      raise ValueError(
        f"{name} must be a list of hosts, got {_short(entries)}."
      )
    pools[name] = [_parse_entry(name, entry) for entry in entries]
  if len(pools.get(_LEARNER_POOL, ())) != 1:
    raise ValueError(
      f"{_LEARNER_POOL} must have exactly one host, that of the learner."
    )
  ((learner_host, port),) = pools.pop(_LEARNER_POOL)
  port = _DEFAULT_PORT if port is None else port
  if port + len(PORTS) > 2**16:
    raise ValueError(
      f"the learner's host needs {len(PORTS)} ports from {port} on, but"
      f" {2**16 - 1} is the last one."
    )
  actors = [
    (pool, number, name)
    for pool in sorted(pools, key=lambda pool: int(pool[len("workerpool"):]))
    for number, (name, _) in enumerate(pools[pool])
  ]
  if not actors:
    raise ValueError(
      "there are no hosts of actors; workerpool1 is a list of them."
    )
  names = [name for _, _, name in actors]
  if len({learner_host, *names}) < 1 + len(names):
    raise ValueError("every host can be named only once.")
  if not 0 < actors_per_host <= _ACTORS_PER_HOST:
    raise ValueError(
      f"--num_actors, which is per host, must be from 1 to {_ACTORS_PER_HOST},"
      f" got {actors_per_host}."
    )
  places = [(_LEARNER_POOL, 0), *[(pool, number) for pool, number, _ in actors]]
  this = _find(spec.get("task"), host, [learner_host, *names], places)
  return Cluster(
    learner_host,
    port,
    tuple(names),
    actors_per_host,
    this - 1 if this else None,
  )


def _parse_entry(pool: str, entry: Any) -> tuple[str, int | None]:
  name, colon, port = (
    entry.partition(":") if isinstance(entry, str) else ("", "", "")
  )
  if not _HOST.fullmatch(name):
    raise ValueError(
      f"{pool} has {_short(entry)}, but entries are 'host' or"
      " 'host:port', the host a name or an IPv4 address."
    )
  if not colon:
    return name, None
  # Not int(), which also takes other scripts' digits, underscores and spaces.
  if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
    raise ValueError(f"{pool} has {_short(entry)}, but {port!r} is not a port.")
  return name, int(port)


# What holds itself, as YAML may, is endless to print.
_short = reprlib.repr


def _find(
  task: Any, host: str | None, names: list[str], places: list[tuple[str, int]]
) -> int:
  """Returns which of the hosts this is."""
  if host is not None:
    if host not in names:
      raise ValueError(unknown("host", host, names))
    return names.index(host)
  if task is not None:
    if not isinstance(task, Mapping):
      raise ValueError(f"'task' must have a type and an index, got"
        f" {_short(task)}.")
    index = task.get("index", os.environ.get("JOB_COMPLETION_INDEX"))
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
      index = int(index)
    place = (task.get("type"), index)
    plain = isinstance(place[0], str) and type(index) is int
    if not plain or place not in places:
      raise ValueError(
        f"task {_short(place)} is not one of the cluster's pools and hosts."
      )
    return places.index(place)
  own = _own_names()
  found = [number for number, name in enumerate(names) if name in own]
  if len(found) != 1:
    several = "more than one of them is" if found else "none of them is"
    raise ValueError(
      f"this machine must be one of {', '.join(names)}, but {several} an"
      f" address or the name of it. Say which one with --host=NAME."
    )
  return found[0]


def _own_names() -> set[str]:
  addresses = {
    address.address
    for interface in psutil.net_if_addrs().values()
    for address in interface
    if address.family == socket.AF_INET
  }
  return {*addresses, socket.gethostname(), socket.getfqdn()}
