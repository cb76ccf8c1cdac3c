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
from typing import Any

import psutil
import yaml

from acme_stac.checks import unknown
from programs.run.errors import UserError

_LEARNER_POOL = "workerpool0"
_DEFAULT_PORT = 7070
# The learner's host listens on them, from its port on; no other host listens.
# Further queues come behind them.
PORTS = ("replay", "counter", "variables")
# Indices of a host's actors begin at its number times this.
_ACTORS_PER_HOST = 1000
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


def check_ports(cluster: Cluster, num_queues: int):
  """Raises UserError if a run of so many queues has too few ports."""
  last = cluster.ports(num_queues)[-1]
  if last >= 2**16:
    raise UserError(
      f"The learner's host would listen on ports up to {last}, but 65535 is"
      " the last one. Give it a lower port, or the run fewer queues."
    )


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
      text = pathlib.Path(path).read_text()
    except (OSError, ValueError) as error:  # ValueError: it is not text.
      raise UserError(f"--cluster={path}: {error}. {_FORM}") from error
  try:
    spec = yaml.safe_load(text)
  # ValueError: something looks like a date but is none.
  except (yaml.YAMLError, ValueError) as error:
    problem = " ".join(str(error).split())
    raise UserError(f"{source} is not YAML: {problem}. {_FORM}") from error
  try:
    return _parse(spec, host, actors_per_host)
  except ValueError as error:
    raise UserError(f"{source}: {error}") from error


def _parse(spec: Any, host: str | None, actors_per_host: int) -> Cluster:
  if not isinstance(spec, Mapping) or not isinstance(
    spec.get("cluster"), Mapping
  ):
    raise ValueError(f"there is no 'cluster'. {_FORM}")
  pools = {}
  for name, entries in spec["cluster"].items():
    if not isinstance(name, str) or not _POOL.fullmatch(name):
      raise ValueError(
        "pools are called workerpool0, workerpool1, …, not"
        f" {reprlib.repr(name)}."
      )
    if not isinstance(entries, list) or not entries:
      raise ValueError(
        f"{name} must be a list of hosts, got {reprlib.repr(entries)}."
      )
    pools[name] = [_parse_entry(name, entry) for entry in entries]
  if len(pools.get(_LEARNER_POOL, ())) != 1:
    raise ValueError(
      f"{_LEARNER_POOL} must have exactly one host, that of the learner."
    )
  ((learner_host, port),) = pools.pop(_LEARNER_POOL)
  port = _DEFAULT_PORT if port is None else port
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
      f"{pool} has {reprlib.repr(entry)}, but entries are 'host' or"
      " 'host:port', the host a name or an IPv4 address."
    )
  if not colon:
    return name, None
  # Not int(), which also takes other scripts' digits, underscores and spaces.
  if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
    raise ValueError(f"{pool} has {entry!r}, but {port!r} is not a port.")
  return name, int(port)


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
      raise ValueError(
        f"'task' must have a type and an index, got {reprlib.repr(task)}."
      )
    index = task.get("index", os.environ.get("JOB_COMPLETION_INDEX"))
    for number, (pool, place) in enumerate(places):
      if (pool, str(place)) == (task.get("type"), str(index)):
        return number
    raise ValueError(
      f"task {reprlib.repr((task.get('type'), index))} is not one of the"
      " cluster's pools and hosts."
    )
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
