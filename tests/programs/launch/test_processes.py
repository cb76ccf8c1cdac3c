"""What becomes of a run whose processes die, hang or freeze."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import psutil
import pytest

from acme_stac import checkpointing
from programs.launch import graph, processes
from tests.support import runs

LONG = ("--config.num_environment_steps=100000000", *runs.SMALL)
FAULTY = "configs/small.py:python:tests.support.faulty:Faulty"


class Running:
  """A run that is killed at the end of the test at the latest."""

  def __init__(self, workdir, *arguments, **kwargs):
    self.workdir = workdir
    self.output = workdir.parent / "output"
    with open(self.output, "w") as file:
      self.process = subprocess.Popen(
        runs.command(workdir, *arguments, **kwargs),
        stdout=file, stderr=subprocess.STDOUT, env=runs.environment(),
      )

  def __enter__(self):
    return self

  def __exit__(self, *unused_args):
    self.process.kill()
    self.process.wait()
    for process in runs.nodes_of(self.workdir):
      process.kill()

  @property
  def text(self):
    return self.output.read_text()

  def wait_for_steps(self, more=5):
    """Waits until the learner has done so many more updates."""
    before = runs.learner_steps(self.workdir)
    self.wait_for(lambda: runs.learner_steps(self.workdir) >= before + more)

  def wait_for(self, condition, seconds=300):
    def met():
      assert self.process.poll() is None, self.text
      return condition()

    runs.wait_for(met, seconds)

  def end(self, seconds=300):
    code = self.process.wait(seconds)
    assert not runs.nodes_of(self.workdir)
    return code


@pytest.mark.slow
@pytest.mark.parametrize("node,restart", [
  ("learner", "workers"), ("replay", "workers"), ("actor", "none"),
])
def test_what_is_not_started_again_ends_the_run_with_its_name(
  tmp_path, node, restart
):
  with Running(tmp_path / "run", f"--restart={restart}", *LONG) as running:
    running.wait_for_steps()
    assert len(runs.nodes_of(running.workdir)) == 6
    runs.node(running.workdir, node).kill()
    assert running.end() == 1
    assert f"Node {node} was killed by SIGKILL" in running.text
    assert f"{node}.log" in running.text and "  | " in running.text
    assert "The same command resumes." in running.text
    assert "Traceback" not in running.text.partition("Node ")[0]


@pytest.mark.slow
def test_workers_are_started_again_and_nothing_else_is_noticed(tmp_path):
  with Running(tmp_path / "run", "--num_actors=2", *LONG) as running:
    running.wait_for_steps()
    log = running.workdir / "logs" / "episodes_actor_1.csv"
    running.wait_for(lambda: log.exists() and len(runs.rows(log)) > 100)
    for node in ("actor/1", "evaluator", "variables", "counter"):
      runs.node(running.workdir, node.replace("/", "_")).kill()
      running.wait_for(
        lambda node=node: f"Node {node} was killed by SIGKILL" in running.text
      )
      # Not by what was under way alone.
      running.wait_for_steps(20)
    running.wait_for(lambda: len(runs.nodes_of(running.workdir)) == 7)
    # The evaluator's first one, and one of its second life.
    evaluator = running.workdir / "logs" / "evaluator.csv"
    running.wait_for(lambda: len(runs.rows(evaluator)) >= 2)
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0
    assert running.text.count("it is started again (1 of at most 5") == 4
    # The new actor goes on in the same log, and does not repeat itself.
    episodes = runs.rows(log)
    counts = [float(row["actor_steps"]) for row in episodes]
    (begin,) = np.flatnonzero(np.diff(counts) < 0) + 1
    number = min(begin, len(counts) - begin, 200)
    assert number > 50
    before, after = (
      [row["episode_return"] for row in episodes[i:i + number]]
      for i in (0, begin)
    )
    assert before != after


@pytest.mark.slow
def test_learner_and_queue_are_started_again_if_asked_to(tmp_path):
  arguments = (
    "--restart=all", "--config.checkpoint_every_seconds=1.", *LONG
  )
  with Running(tmp_path / "run", *arguments) as running:
    checkpoints = running.workdir / "checkpoints"
    running.wait_for(lambda: checkpointing.list_checkpoints(checkpoints))
    runs.node(running.workdir, "replay").kill()
    running.wait_for(lambda: "Node replay was killed" in running.text)
    running.wait_for_steps(20)
    logs = running.workdir / "logs" / "learner.csv"
    learner = runs.node(running.workdir, "learner")

    def logged():
      return [int(float(row["learner_steps"])) for row in runs.rows(logs)]

    def stands_beyond_a_checkpoint():
      # Frozen, so that neither rows nor checkpoints come while it is looked at.
      learner.suspend()
      newest = checkpointing.list_checkpoints(checkpoints)[-1]
      nonlocal step
      step = int(newest.stem.split("_")[1])
      if sum(done > step for done in logged()) >= 5:
        return True
      learner.resume()
      return False

    step = 0
    running.wait_for(stands_beyond_a_checkpoint)
    count = len(logged())
    learner.kill()
    running.wait_for(lambda: "Node learner was killed" in running.text)
    running.wait_for(lambda: len(logged()) > count + 20)
    steps = logged()
    # It went back to a checkpoint, not to the beginning.
    (begin,) = np.flatnonzero(np.diff(steps) < 0) + 1
    assert steps[begin] > step
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0


@pytest.mark.slow
def test_frozen_nodes_go_on_where_they_were(tmp_path):
  with Running(tmp_path / "run", *LONG) as running:
    running.wait_for_steps()
    # Two that call each other, for longer than a call may take.
    frozen = [
      runs.node(running.workdir, name) for name in ("counter", "replay")
    ]
    for process in frozen:
      process.suspend()
    time.sleep(12)
    before = runs.learner_steps(running.workdir)
    time.sleep(2)
    assert runs.learner_steps(running.workdir) == before
    for process in frozen:
      process.resume()
    running.wait_for_steps(20)
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0
    assert "started again" not in running.text


@pytest.mark.slow
def test_crash_loop_ends_with_the_last_lines(tmp_path):
  """An environment that takes its process along."""
  script = (
    "import sys; from programs import train;"
    "from programs.launch import processes;"
    "processes._DEATHS = (1, 600.0); sys.exit(train.main(sys.argv))"
  )
  command = runs.command(
    tmp_path / "run",
    "--config.environment_options.fault=crash",
    "--config.environment_options.after=1250",
    *LONG,
    config=FAULTY,
  )
  command[1:3] = ["-c", script]
  result = subprocess.run(
    command, capture_output=True, text=True, timeout=500,
    env=runs.environment(),
  )
  assert result.returncode == 1, result.stdout
  assert "Node actor was killed by SIGABRT; it is started again" in (
    result.stdout
  )
  assert "SIGABRT, its death number 2 within 600 s, so the run was" in (
    result.stderr
  )
  # Whose fault it was.
  assert "faulty.py" in result.stderr
  assert not runs.nodes_of(tmp_path)


@pytest.mark.parametrize("log", ["full", "removed"])
def test_the_reason_of_a_hopeless_exit_needs_no_disk(tmp_path, log):
  code = """
    import os, threading
    import launchpad
    from programs.launch import graph
    from programs.nodes import nodes

    def make(should_stop):
      raise nodes.HopelessError("The checkpoints are damaged.")

    launchpad.stop_event = threading.Event
    if {full}:
      full = os.open("/dev/full", os.O_WRONLY)
      os.dup2(full, 1)
      os.dup2(full, 2)
    graph._run(make)
  """
  code = textwrap.dedent(code.format(full=log == "full"))
  directory = tmp_path if log == "full" else tmp_path / "removed"
  node = processes._Node(
    "learner", [sys.executable, "-c", code], {}, directory / "learner.log"
  )
  node.start()
  assert node.process.wait(120) == graph.EXIT_HOPELESS
  assert node.last_lines().endswith("  | The checkpoints are damaged.")
  node.reason.close()


@pytest.mark.slow
def test_a_learner_without_a_sound_checkpoint_is_not_started_for_ever(
  tmp_path,
):
  arguments = (
    "--restart=all", "--config.checkpoint_every_seconds=1.", *LONG
  )
  with Running(tmp_path / "run", *arguments) as running:
    checkpoints = running.workdir / "checkpoints"
    running.wait_for(lambda: checkpointing.list_checkpoints(checkpoints))
    learner = runs.node(running.workdir, "learner")
    # It writes none after these were damaged.
    learner.suspend()
    for path in checkpoints.rglob("*.npz"):
      path.write_bytes(b"damaged")
    learner.kill()
    assert running.end() == 1
    assert running.text.count("is started again") == 1
    assert "Node learner ended with exit code 69, so the run" in running.text
    assert "The learner cannot begin. No checkpoint can be read" in running.text


@pytest.mark.slow
def test_an_environment_that_fails_for_good_ends_the_run(tmp_path):
  result = runs.run(
    tmp_path / "run",
    "--config.environment_options.fault=raise",
    "--config.environment_options.after=1250",
    "--config.agent=impala",
    *LONG,
    "--config.evaluation.episodes=0",
    config=FAULTY,
  )
  assert result.returncode == 1
  assert "The environment failed 6 times within 600 s" in result.stderr
  assert "RuntimeError: the simulator is gone" in result.stderr
  assert "Its last actions, the newest last:" in result.stderr
  assert "is started again" not in result.stdout
  actor = runs.rows(tmp_path / "run" / "logs" / "actor_0.csv")
  assert int(float(actor[-1]["environment_failures"])) == 5


@pytest.mark.slow
def test_an_environment_that_hangs_is_made_again(tmp_path):
  marker = tmp_path / "marker"
  with Running(
    tmp_path / "run",
    "--config.environment_options.fault=hang",
    "--config.environment_options.after=1250",
    f"--config.environment_options.marker={marker}",
    "--config.environment_timeout_seconds=3.",
    *LONG,
    "--config.evaluation.episodes=0",
    config=FAULTY,
  ) as running:
    running.wait_for(marker.exists)
    running.wait_for(lambda: "(its environment hung)" in running.text)
    running.wait_for_steps(20)
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0
  log = (tmp_path / "run" / "logs" / "nodes" / "actor.log").read_text()
  assert "The environment has not returned for 3 s. Its last actions" in log
  assert re.search(r"faulty.py., line \d+ in step", log)


def in_a_mount_namespace(*command):
  return ["unshare", "--user", "--map-root-user", "--mount", *command]


@pytest.mark.slow
@pytest.mark.skipif(
  not shutil.which("unshare")
  or subprocess.run(
    in_a_mount_namespace("mount", "-t", "tmpfs", "none", "/mnt"),
    capture_output=True, check=False,
  ).returncode != 0,
  reason="This kernel lets nobody mount a small disk of his own.",
)
def test_full_disk_ends_neither_training_nor_the_last_checkpoint(tmp_path):
  disk, saved = tmp_path / "disk", tmp_path / "saved"
  disk.mkdir()
  command = runs.command(
    disk / "run", "--config.checkpoint_every_seconds=1.", *LONG
  )
  script = (
    'mount -t tmpfs -o size=4m none "$1"; disk=$1; saved=$2; shift 2; "$@";'
    ' code=$?; cp -r "$disk/run" "$saved"; exit $code'
  )
  output = tmp_path / "output"
  with open(output, "w") as file:
    process = subprocess.Popen(
      in_a_mount_namespace(
        "sh", "-c", script, "sh", str(disk), str(saved), *command
      ),
      stdout=file, stderr=subprocess.STDOUT, env=runs.environment(),
    )
  inside = f"/proc/{process.pid}/root{disk}"

  def steps():
    return runs.learner_steps(f"{inside}/run")

  def fill_up():
    with (
      contextlib.suppress(OSError),
      open(f"{inside}/filler", "wb", buffering=0) as filler,
    ):
      while True:
        filler.write(bytes(1024))

  try:
    runs.wait_for(
      lambda: checkpointing.list_checkpoints(f"{inside}/run/checkpoints")
    )
    fill_up()
    # Where nothing can be written nothing can be said; it goes on all the same.
    time.sleep(8)
    assert process.poll() is None, output.read_text()
    os.remove(f"{inside}/filler")
    before = steps()
    runs.wait_for(lambda: steps() > before + 20)
    newest = checkpointing.list_checkpoints(f"{inside}/run/checkpoints")[-1]
    runs.wait_for(
      lambda: checkpointing.list_checkpoints(
        f"{inside}/run/checkpoints"
      )[-1] != newest
    )
    fill_up()
    time.sleep(2)
    (launcher,) = psutil.Process(process.pid).children()
    launcher.send_signal(signal.SIGINT)
    assert process.wait(300) == 1, output.read_text()
    assert "No space left on device" in output.read_text()
    assert "the checkpoint is saved" not in output.read_text()
  finally:
    if process.poll() is None:
      for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
      process.kill()
    process.wait()
  assert checkpointing.list_checkpoints(saved / "checkpoints")
  # The run had gone on meanwhile: these updates are in no log.
  steps_logged = [
    int(float(row["learner_steps"] or 0))
    for row in runs.rows(saved / "logs" / "learner.csv")
    if (row["learner_steps"] or "").replace(".", "").isdigit()
  ]
  assert max(np.diff(steps_logged)) > 10
  assert not [
    path for path in (saved / "checkpoints").iterdir()
    if path.name.startswith(".")
  ]


def listening(network):
  """Ports that are listened on in a network, from its table in /proc."""
  ports = set()
  for family in ("tcp", "tcp6"):
    with open(f"/proc/{network}/net/{family}") as file:
      for line in list(file)[1:]:
        _, local, _, state, *_ = line.split()
        if state == "0A":
          ports.add(int(local.rpartition(":")[2], 16))
  return ports


@pytest.mark.slow
def test_nobody_outside_reaches_a_local_run(tmp_path):
  before = listening("self")
  with Running(tmp_path / "run", *LONG) as running:
    running.wait_for_steps()
    if "does not let this run have a network of its own" in running.text:
      pytest.skip("This kernel lets nobody have a network of his own.")
    # Others may begin to listen meanwhile, but not on the run's ports.
    assert not listening(running.process.pid) & (listening("self") - before)
    # All of them are in one network, which has no way out.
    networks = {
      os.readlink(f"/proc/{process.pid}/ns/net")
      for process in (running.process, *runs.nodes_of(running.workdir))
    }
    assert len(networks) == 1
    assert networks != {os.readlink("/proc/self/ns/net")}
    assert len(listening(running.process.pid)) == 3
    with open(f"/proc/{running.process.pid}/net/dev") as file:
      interfaces = [line.split(":")[0].strip() for line in list(file)[2:]]
    assert "lo" in interfaces
    with open(f"/proc/{running.process.pid}/net/route") as file:
      assert len(list(file)) == 1
    # What it writes is the user's own.
    assert (running.workdir / "config.json").stat().st_uid == os.getuid()
