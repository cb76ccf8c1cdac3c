"""A run over three hosts: network namespaces that are joined by a switch.

The learner's host, and two hosts of actors: near and far. All that is tested
goes over the real command on each of them.
"""

import dataclasses
import io
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml

from acme_stac import checkpointing
from programs.launch import ending, hosts, supervision
from programs.launch.cluster import Cluster
from programs.launch.progress import Progress
from programs.nodes import counter
from programs.nodes.calls import StatusNotOk
from programs.run.errors import UserError
from tests.support import namespaces
from tests.support.runs import (
  SMALL,
  command,
  environment,
  learner_steps,
  make_experiment,
  rows,
)

PORT = 7070
PORTS = {PORT, PORT + 1, PORT + 2}
ADDRESSES = {
  "learner": "10.99.0.1",
  "near": "10.99.0.2",
  "far": "10.99.0.3",
}
# Of a far host that reaches the others over a relay on the switch alone, and
# of that relay.
APART = "10.98.0.3"
RELAY = "10.98.0.254"
# The first actor of each host.
FIRST = {"near": 0, "far": 1000}
ENDLESS = (
  "--config.environment=python:tests.support.faulty:Paced",
  "--config.num_environment_steps=100000000",
)
RELAY_SCRIPT = pathlib.Path(namespaces.__file__).with_name("relay.py")
# What a host says of one that is silent, after a minute of silence.
SILENT = "has not been heard of"
SILENT_SECONDS = 60.0
# Exit code of a host that was told to go.
TOLD_TO_GO = 128 + signal.SIGTERM


@pytest.fixture
def network():
  try:
    network = namespaces.Network()
  except namespaces.UnavailableError as error:
    pytest.skip(f"No network namespaces here: {error}")
  try:
    yield network
  finally:
    network.close()


@dataclasses.dataclass
class Host:
  """The command on one host, again and again.

  Attributes:
    network: that it is in.
    name: of the host there.
    directory: of its cluster file, work directory and output.
    addresses: of all hosts, as this one knows them.
    arguments: of the command.
    process: the newest one.
  """

  network: namespaces.Network
  name: str
  directory: pathlib.Path
  addresses: dict[str, str]
  arguments: tuple[str, ...]
  process: subprocess.Popen | None = None

  @property
  def workdir(self) -> pathlib.Path:
    return self.directory / "run"

  @property
  def output(self) -> str:
    """What the newest process said."""
    return (self.directory / "output").read_text()

  def start(self, *more_arguments):
    self.directory.mkdir(exist_ok=True)
    cluster = self.directory / "cluster.yaml"
    learner, *actors = self.addresses.values()
    cluster.write_text(yaml.safe_dump({
      "cluster": {"workerpool0": [f"{learner}:{PORT}"], "workerpool1": actors}
    }))
    with open(self.directory / "output", "w") as output:
      # Which of the hosts it is, its own addresses say.
      self.process = self.network.start(
        self.name,
        *command(
          self.workdir, "--launch=hosts", f"--cluster={cluster}", *SMALL,
          *self.arguments, *more_arguments,
        ),
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment(),
      )

  def ended(self, seconds=300) -> int:
    """Waits for the end; returns the exit code."""
    assert self.process is not None
    return self.process.wait(seconds)

  @property
  def ran(self) -> int:
    """How many rows the first actor's log has, in all its lives."""
    log = self.workdir / "logs" / f"actor_{FIRST[self.name]}.csv"
    return len(log.read_bytes().splitlines()) if log.exists() else 0

  @property
  def learned(self) -> int:
    return learner_steps(self.workdir)


class Hosts(dict):
  """The three hosts."""

  def __init__(self, network, directory, *arguments, addresses=None):
    addresses = addresses or {}
    super().__init__({
      name: Host(
        network, name, directory / name, addresses.get(name, ADDRESSES),
        arguments,
      )
      for name in ADDRESSES
    })

  def until(self, condition, what, seconds=300, running=tuple(ADDRESSES)):
    """Waits for a condition; fails if one of the `running` hosts ends."""
    deadline = time.monotonic() + seconds
    while not condition():
      ended = [
        name for name in running
        if self[name].process and self[name].process.poll() is not None
      ]
      assert not ended, f"{ended} ended, before {what}\n{self.said()}"
      assert time.monotonic() < deadline, f"Not {what}\n{self.said()}"
      time.sleep(0.1)

  def until_grown(self, name, what="ran", by=3, **kwargs):
    """Waits until a host's actor, or the learner, has done something more."""
    host = self[name]
    before = getattr(host, what)
    self.until(
      lambda: getattr(host, what) >= before + by, f"{name} {what}", **kwargs
    )

  def said(self) -> str:
    """Returns what was printed, for a test that fails."""
    parts = []
    for name, host in self.items():
      if host.process:
        logs = sorted((host.workdir / "logs" / "nodes").glob("*.log"))
        for path in (host.directory / "output", *logs):
          text = "\n".join(path.read_text(errors="replace").splitlines()[-30:])
          parts.append(f"--- {name}, {path.name}\n{text}")
    return "\n".join(parts)


def make_network_of_three(network, far="10.99.0.3/24", far_on_switch=None):
  network.add_host("learner", "10.99.0.1/24")
  network.add_host("near", "10.99.0.2/24")
  network.add_host("far", far, far_on_switch)


def supervisor(experiment, counter):
  """Returns the supervisor of the near host of actors."""
  progress = Progress(io.StringIO())
  cluster = Cluster("learner", PORT, ("near", "far"), 1, 0)
  return supervision.Supervisor(
    experiment,
    counter,
    progress,
    hosts.make(cluster, experiment, progress),
    ending.StopRequest(),
  )


def test_a_learners_host_that_comes_back_as_another_run(tmp_path):
  experiment = make_experiment(tmp_path)

  class Counter(counter.RunCounter):
    away = False

    def status(self, *who):
      if self.away:
        raise StatusNotOk("nobody there")
      return super().status(*who)

  def make_counter(run):
    return Counter(640, 640, run=run.to_json())

  watch = supervisor(experiment, make_counter(experiment))
  assert watch.look()["hosts"].keys() == {"near"}

  def come_back_with(run):
    watch._counter.away = True
    assert watch.look() is None
    watch._counter = make_counter(run)
    return watch.look()

  # Hosts may differ in that.
  assert come_back_with(make_experiment(tmp_path, log_every_seconds=9.0))
  with pytest.raises(UserError, match="seed: 1 -> 0"):
    come_back_with(make_experiment(tmp_path, seed=1))


def test_a_host_that_is_started_twice(tmp_path, monkeypatch):
  experiment = make_experiment(tmp_path)
  now = [100.0]
  monkeypatch.setattr(supervision.time, "monotonic", lambda: now[0])
  shared = counter.RunCounter(
    640, 640, run=experiment.to_json(), clock=lambda: now[0]
  )

  def start():
    return supervisor(experiment, shared)

  first = start()
  first.look()
  # One that takes the place of one that has just ended goes on.
  second = start()
  for _ in range(30):
    now[0] += 1
    second.look()
  # One beside another that runs gives way, and the other does not.
  third = start()
  with pytest.raises(UserError, match="near has been started already"):
    for _ in range(30):
      now[0] += 1
      second.look()
      third.look()
  assert now[0] < 145
  assert second.look()


def cut_off_for_half_a_minute(network, hosts):
  """Takes the far host off the network, for longer than any call may take."""
  learner, near, far = hosts.values()
  before = {name: pids(network, name) for name in hosts}
  # Said of the first update, which may take long to compile.
  waited_for = learner.output.count("No update for")
  cut = time.monotonic()
  noted = None

  def passed() -> float:
    nonlocal noted
    if noted is None and SILENT in learner.output:
      noted = time.monotonic() - cut
    return time.monotonic() - cut

  network.set_link("far", "down")
  hosts.until(lambda: passed() > 3, "cut off")
  ran = far.ran
  # The others go on all the time.
  for until in (13, 26):
    learned, acted = learner.learned, near.ran
    hosts.until(lambda until=until: passed() > until, "waited")
    assert learner.learned > learned + 5
    assert near.ran > acted + 5
  assert far.ran == ran
  network.set_link("far", "up")

  silent = f"Host {ADDRESSES['far']} {SILENT}"
  back = f"Host {ADDRESSES['far']} is back."

  def is_back():
    said = learner.output
    return far.ran > ran + 5 and said.count(silent) == said.count(back)

  hosts.until(lambda: is_back() and passed(), "the cut host back")
  # What is said of silence is true.
  counter = f"{ADDRESSES['learner']}:{PORT + 1}"
  assert f"No answer from the counter on {counter} for" in far.output
  assert learner.output.count(SILENT) == (noted is not None)
  assert noted is None or noted > SILENT_SECONDS - 2
  assert learner.output.count("No update for") == waited_for
  # Nobody died of it.
  assert before == {name: pids(network, name) for name in hosts}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_hosts_come_late_are_cut_off_go_and_come_back(network, tmp_path):
  make_network_of_three(network)
  hosts = Hosts(network, tmp_path, *ENDLESS, "--config.evaluation.episodes=0")
  learner, near, far = (hosts[name] for name in ADDRESSES)

  # The actors' host is first; it waits, and so do its actors.
  near.start()
  hosts.until(lambda: "a host of actors, 10.99.0.2;" in near.output, "started")
  learner.start()
  hosts.until_grown("learner", "learned")
  # The learner does not wait for hosts that are late, but it names them.
  waiting = "Waiting for actors of: "
  hosts.until(lambda: waiting in learner.output, "named")
  hosts.until(
    lambda: f"{waiting}10.99.0.3\n" in learner.output, "named alone"
  )
  assert near.ran

  # A host of another run is turned away before it acts.
  far.start("--config.agent=impala", "--config.log_every_seconds=0.5")
  assert far.ended() == 2, hosts.said()
  assert "has another run than this one" in far.output
  assert "agent: 'stacx' -> 'impala'" in far.output
  # What hosts may differ in is not among the reasons.
  assert "log_every_seconds" not in far.output
  assert "Traceback" not in far.output
  assert not network.processes("far")
  assert not far.ran
  assert learner.process.poll() is None

  far.start()
  hosts.until_grown("far")
  noted = learner.output.count(waiting)

  # Nothing else listens, on any interface.
  assert network.listening("learner") == PORTS
  assert network.listening("near") == network.listening("far") == set()

  cut_off_for_half_a_minute(network, hosts)

  # A host loses its power: no connection is closed. The others go on.
  network.cut_power("far")
  ran = far.ran
  hosts.until_grown("learner", "learned", by=20, running=("learner", "near"))
  hosts.until_grown("near", running=("learner", "near"))
  assert far.ran == ran

  # The learner's host ends. One host of actors waits for it, and the lost one
  # is started again meanwhile.
  same = pids(network, "near")
  learner.process.send_signal(signal.SIGTERM)
  assert learner.ended() == TOLD_TO_GO, hosts.said()
  assert "the checkpoint is saved" in learner.output
  assert not network.processes("learner")
  # Who has been there once is not waited for.
  assert learner.output.count(waiting) == noted
  saved = checkpointing.list_checkpoints(learner.workdir / "checkpoints")
  step = int(saved[-1].stem.split("_")[1])
  assert step >= learner.learned > 0
  before = rows(learner.workdir / "logs" / "learner.csv")
  network.add_host("far", "10.99.0.3/24")
  far.start()
  learner.start()
  hosts.until(
    lambda: f"Resuming after {step:,} updates" in learner.output, "resumed"
  )
  hosts.until_grown("near")
  hosts.until_grown("far")
  after = rows(learner.workdir / "logs" / "learner.csv")[len(before):]
  assert int(float(after[0]["learner_steps"])) == step + 1
  # The host that waited needed no other processes.
  assert pids(network, "near") == same

  # Each host can be ended by itself.
  for host in (far, near, learner):
    host.process.send_signal(signal.SIGTERM)
    assert host.ended() == TOLD_TO_GO, hosts.said()
    assert not network.processes(host.name)
    saved = "; the checkpoint is saved" if host is learner else ""
    assert f"Stopped{saved}. The same command goes on." in host.output
  assert not any(SILENT in host.output for host in hosts.values())


# Seconds until the answer to a ping of HTTP/2, which every gRPC server gives.
PING = """
import socket, sys, time

def frame(kind, data):
  return len(data).to_bytes(3, "big") + bytes([kind, 0]) + bytes(4) + data

def ping(*address):
  with socket.create_connection(address, 20) as connection:
    preface = b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"
    connection.sendall(preface + frame(4, b""))
    # It is ready when it has sent something itself.
    received = connection.recv(4096)
    started = time.monotonic()
    connection.sendall(frame(6, b"are here"))
    while b"are here" not in received:
      more = connection.recv(4096)
      assert more, received
      received += more
    return time.monotonic() - started

# A busy machine makes some of them late.
print(min(ping(sys.argv[1], int(sys.argv[2])) for _ in range(5)))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_delay_on_one_link_and_the_end(network, tmp_path):
  addresses = {}
  if network.can_delay:
    make_network_of_three(network)
    network.delay("far", 20)
  else:
    # The far host reaches nothing but a relay on the switch, which is slow.
    make_network_of_three(network, f"{APART}/24", f"{RELAY}/24")
    network.add_switch_address("10.99.0.254/24")
    network.start_on_switch(
      sys.executable, str(RELAY_SCRIPT), "0.02", RELAY, ADDRESSES["learner"],
      *map(str, sorted(PORTS)),
    )
    others = {**ADDRESSES, "far": APART}
    addresses = {
      "learner": others, "near": others, "far": {**others, "learner": RELAY}
    }
  budget, batch = 100_000, 640
  total = -(-budget // batch) * batch
  hosts = Hosts(
    network, tmp_path, f"--config.num_environment_steps={budget}",
    addresses=addresses,
  )
  learner, near, far = (hosts[name] for name in ADDRESSES)
  near.start()
  far.start()
  # They can act before the first update has been compiled.
  begun = "This is a host of actors"
  hosts.until(lambda: begun in near.output and begun in far.output, "begun")
  learner.start()
  hosts.until(lambda: network.listening("learner") == PORTS, "listening")

  def ping(host):
    to = host.addresses["learner"], str(PORT + 1)
    return float(network.run(host.name, sys.executable, "-c", PING, *to))

  assert ping(far) > 0.04 > ping(near)

  # The run ends everywhere, with nobody's help.
  for host in hosts.values():
    assert host.ended(300) == 0, hosts.said()
    assert f" are in {host.workdir}\n" in host.output
    assert ("Done. Logs of actors" in host.output) == (host is not learner)
    assert not network.processes(host.name)
  # The budget, and every step of it was learned from once.
  last = rows(learner.workdir / "logs" / "learner.csv")[-1]
  assert float(last["environment_steps"]) == total
  assert learner.learned == total / batch
  episodes = {
    host.name: len(rows(
      host.workdir / "logs" / f"episodes_actor_{FIRST[host.name]}.csv"
    ))
    for host in (near, far)
  }
  assert abs(sum(episodes.values()) - total / 10) <= 2 * 16
  # A delay costs the far host, but it has its share.
  assert min(episodes.values()) > 0.02 * sum(episodes.values()), episodes
  evaluator = rows(learner.workdir / "logs" / "evaluator.csv")
  assert float(evaluator[-1]["environment_steps"]) == total
  # Only the learner's host has results.
  assert (learner.workdir / "plots" / "learning_curve.png").exists()
  assert not (far.workdir / "plots").exists()
  assert not (far.workdir / "config.json").exists()
  assert not any("Traceback" in host.output for host in hosts.values())


def pids(network, name):
  return {process.pid for process in network.processes(name)}
