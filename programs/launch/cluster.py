"""The hosts of a run, in the form of Launchpad's CLUSTER_SPEC.

Launchpad's cloud launch tells every process where the others are by the
environment variable CLUSTER_SPEC, which Vertex AI sets:

  {"cluster": {"workerpool0": ["10.0.0.1:7070"],
               "workerpool1": ["10.0.0.2", "10.0.0.3"]},
   "task": {"type": "workerpool1", "index": 0}}

The one entry of workerpool0 is the learner's host: learner, evaluator, queue,
counter and variable server. All others are hosts of actors. A file of the same
form, in YAML or JSON, can take the variable's place.
"""

import dataclasses
import os
import pathlib
import re
import reprlib
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

import psutil
import yaml

from acme_stac.checks import unknown
from programs.run.errors import UserError

_DEFAULT_PORT = 7070
# The learner's host listens on them, from its port on; no other host listens.
# Further queues come behind them.
PORTS = ("replay", "counter", "variables")
# Indices of a host's actors begin at its number times this.
_ACTORS_PER_HOST = 1000
_POOL = re.compile(r"workerpool([0-9]{1,9})")
_ENTRY = re.compile(
  r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::([0-9]{1,5}))?"
)
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
    """Returns where the n-th node of a group of `PORTS` listens."""
    offset = len(PORTS) + number - 1 if number else PORTS.index(group)
    # Its own name may not lead a host to itself.
    host = "localhost" if self.is_learner_host else self.learner_host
    return f"{host}:{self.port + offset}"


class _Entry(NamedTuple):
  pool: int
  number: int
  host: str
  port: int


def read(
  path: str | None, host: str | None, actors_per_host: int
) -> Cluster:
  """Reads the hosts of a run.

  Args:
    path: of a cluster file; None for the environment variable CLUSTER_SPEC.
    host: which entry this host is. If None, the `task` says; its index may come
      from JOB_COMPLETION_INDEX, which Kubernetes sets. Without a task, the
      entry that is an address or name of this machine.
    actors_per_host: actors on each host of actors.

  Raises:
    UserError: if there is no such file or variable, it has another form, or
      this host is not in it.
  """
  if path is None and "CLUSTER_SPEC" not in os.environ:
    raise UserError(
      "--launch=hosts needs --cluster=FILE, or CLUSTER_SPEC in the environment."
      f" {_FORM}"
    )
  source = "CLUSTER_SPEC" if path is None else path
  try:
    if path is None:
      text = os.environ["CLUSTER_SPEC"]
    else:
      text = pathlib.Path(path).read_text()
    return _parse(yaml.safe_load(text), host, actors_per_host)
  except OSError as error:
    raise UserError(f"--cluster={path}: {error}. {_FORM}") from error
  except yaml.YAMLError as error:
    problem = " ".join(str(error).split())
    raise UserError(f"{source} is not YAML: {problem}. {_FORM}") from error
  # Also where bytes are not text, or something looks like a date but is none.
  except ValueError as error:
    raise UserError(f"{source}: {error}") from error


def _parse(spec: Any, host: str | None, actors_per_host: int) -> Cluster:
  pools = spec.get("cluster") if isinstance(spec, Mapping) else None
  if not isinstance(pools, Mapping):
    raise ValueError(f"there is no 'cluster'. {_FORM}")
  entries = sorted(
    entry for pool, hosts in pools.items() for entry in _entries(pool, hosts)
  )
  if [entry.pool for entry in entries[:2]].count(0) != 1:
    raise ValueError(
      "workerpool0 must have exactly one host, that of the learner."
    )
  names = [entry.host for entry in entries]
  if len(names) < 2:
    raise ValueError(
      "there are no hosts of actors; workerpool1 is a list of them."
    )
  if len(set(names)) < len(names):
    raise ValueError("every host can be named only once.")
  if not 0 < actors_per_host <= _ACTORS_PER_HOST:
    raise ValueError(
      f"--num_actors, which is per host, must be from 1 to {_ACTORS_PER_HOST},"
      f" got {actors_per_host}."
    )
  this = _find(entries, spec.get("task"), host)
  return Cluster(
    names[0], entries[0].port, tuple(names[1:]), actors_per_host,
    this - 1 if this else None,
  )


def _entries(pool: Any, hosts: Any) -> list[_Entry]:
  """Returns the hosts of a pool; raises ValueError for another form."""
  found = _POOL.fullmatch(str(pool))
  if not found or not isinstance(hosts, list):
    raise ValueError(
      "pools are called workerpool0, workerpool1, …, and each is a list of"
      f" hosts, unlike {reprlib.repr(pool)}: {reprlib.repr(hosts)}."
    )
  entries = []
  for number, text in enumerate(hosts):
    entry = _ENTRY.fullmatch(text) if isinstance(text, str) else None
    port = int(entry[2] or _DEFAULT_PORT) if entry else 0
    if not entry or not 0 < port < 2**16:
      raise ValueError(
        f"{pool} has {reprlib.repr(text)}, but entries are 'host' or"
        " 'host:port', the host a name or an IPv4 address, the port from 1 to"
        " 65535."
      )
    entries.append(_Entry(int(found[1]), number, entry[1], port))
  return entries


def _find(entries: list[_Entry], task: Any, host: str | None) -> int:
  """Returns which of the hosts this is."""
  names = [entry.host for entry in entries]
  if host is not None:
    if host not in names:
      raise ValueError(unknown("host", host, names))
    return names.index(host)
  if task is not None:
    task = task if isinstance(task, Mapping) else {}
    index = task.get("index", os.environ.get("JOB_COMPLETION_INDEX"))
    places = [(f"workerpool{e.pool}", str(e.number)) for e in entries]
    if (place := (task.get("type"), str(index))) in places:
      return places.index(place)
    raise ValueError(
      f"'task' must have the type and index of one of the cluster's hosts, got"
      f" {reprlib.repr((task.get('type'), index))}."
    )
  own = {socket.gethostname(), socket.getfqdn()} | {
    address.address
    for interface in psutil.net_if_addrs().values()
    for address in interface
    if address.family == socket.AF_INET
  }
  found = [number for number, name in enumerate(names) if name in own]
  if len(found) != 1:
    several = "more than one of them is" if found else "none of them is"
    raise ValueError(
      f"this machine must be one of {', '.join(names)}, but {several} an"
      " address or the name of it. Say which one with --host=NAME."
    )
  return found[0]
