"""What becomes of a run whose processes die, hang or freeze."""

import contextlib
import itertools
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
from programs.launch import node_process
from programs.launch.node_process import Node
from tests.support import runs

LONG = ("--config.num_environment_steps=100000000", *runs.SMALL)
FAULTY = "configs/small.py:python:tests.support.faulty:Faulty"
PACED = "configs/small.py:python:tests.support.faulty:Paced"


@pytest.mark.slow
def test_a_run_trains_to_its_budget_and_leaves_nothing(tmp_path):
  result = runs.run(
    tmp_path,
    "--num_actors=2",
    "--config.num_queues=2",
    "--config.agent=stacx",
    "--config.num_environment_steps=60000",
    "--config.stac.learning_rate=1e-2",
    *runs.SMALL,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert not runs.nodes_of(tmp_path)
  assert re.search(r"[\d,]+/60,160 steps .*return", result.stdout)
  assert "Done." in result.stdout
  logs = tmp_path / "logs"
  # The budget, in whole batches, and no step more on either side.
  learner = runs.rows(logs / "learner.csv")
  assert float(learner[-1]["environment_steps"]) == 60160
  evaluator = runs.rows(logs / "evaluator.csv")
  assert float(evaluator[-1]["environment_steps"]) == 60160
  made = sum(
    float(runs.rows(logs / f"actor_{i}.csv")[-1]["actor_environment_steps"])
    for i in range(2)
  )
  assert made <= 60160 + 2 * 320
  # Every step that an actor made was learned from, once.
  episodes = [
    row
    for i in range(2)
    for row in runs.rows(logs / f"episodes_actor_{i}.csv")
  ]
  assert abs(len(episodes) - 60160 / 10) <= 2 * 16
  assert {row["length"] for row in episodes} == {"9"}
  last = learner[-1]
  for head in range(3):
    assert 0.9 < float(last[f"sigma_discount_head{head}"]) < 1.0
  for name in (
    "learning_curve", "metaparameters", "metagradient", "pipeline"
  ):
    image = tmp_path / "plots" / f"{name}.png"
    assert image.stat().st_size > 5000
  assert list((tmp_path / "tensorboard").iterdir())
  # Chance is about -0.6: it has learned.
  episodes.sort(key=lambda row: float(row["actor_steps"]))
  returns = [float(row["episode_return"]) for row in episodes]
  assert np.mean(returns[-1000:]) > np.mean(returns[:1000]) + 0.1


@pytest.mark.slow
def test_a_killed_launcher_leaves_no_node_and_the_run_resumes(tmp_path):
  arguments = (
    "--config.num_environment_steps=10000000",
    "--config.checkpoint_every_seconds=1.",
    *runs.SMALL,
    "--config.evaluation.episodes=0",
  )
  workdir = tmp_path / "run"
  logs = workdir / "logs" / "learner.csv"
  checkpoints = workdir / "checkpoints"
  ports_before = listening("self")
  with runs.Running(workdir, *arguments, config=PACED) as running:
    running.wait_for(
      lambda: len(checkpointing.list_checkpoints(checkpoints)) > 1
    )
    assert len(runs.nodes_of(workdir)) == 5
    check_network(running, ports_before)
    running.process.kill()
    runs.wait_for(lambda: not runs.nodes_of(workdir))
  newest = checkpointing.list_checkpoints(checkpoints)[-1]
  step = int(newest.stem.split("_")[1])
  eta = runs.states(workdir)[".metaparams['discount']"]
  before = runs.rows(logs)

  with runs.Running(workdir, *arguments, config=PACED) as running:
    running.wait_for(lambda: len(runs.rows(logs)) > len(before) + 2)
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0, running.text
  assert f"Resuming after {step:,} updates" in running.text
  first = runs.rows(logs)[len(before)]
  assert int(float(first["learner_steps"])) == step + 1
  np.testing.assert_allclose(
    float(first["sigma_discount_head0"]), 1 / (1 + np.exp(-eta[0])), rtol=1e-6
  )
  # The learning rate goes on where it was.
  fraction = step / (10_000_000 / 640)
  rate = [float(row["learning_rate"]) for row in before]
  assert float(first["learning_rate"]) <= rate[0] * (1 - fraction) * 1.001
  # A signal has it save what it learned, and draw nothing.
  assert "the checkpoint is saved" in running.text
  assert not (workdir / "plots").exists()
  newest = checkpointing.list_checkpoints(checkpoints)[-1]
  assert int(newest.stem.split("_")[1]) >= runs.learner_steps(workdir)


def check_network(running, before):
  """Checks that nobody outside reaches a run; `before` are ports in use."""
  if "does not let this run have a network of its own" in running.text:
    return
  # Others may begin to listen meanwhile, but not on the run's ports.
  assert not listening(running.process.pid) & (listening("self") - before)
  # All processes are in one network, which has no way out.
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


@pytest.mark.slow
def test_whatever_dies_or_freezes_the_run_goes_on(tmp_path):
  """One node after the other, until no checkpoint can be read."""
  arguments = (
    "--num_actors=2", "--restart=all", "--config.checkpoint_every_seconds=1.",
    *LONG,
  )
  with runs.Running(tmp_path / "run", *arguments, config=PACED) as running:
    logs = running.workdir / "logs"
    checkpoints = running.workdir / "checkpoints"
    episodes = logs / "episodes_actor_1.csv"
    # What the actor that is killed is compared by, and the evaluator's first.
    running.wait_for(lambda: rows_of(episodes) > 100)
    running.wait_for(lambda: rows_of(logs / "evaluator.csv") >= 1)
    evaluations = rows_of(logs / "evaluator.csv")
    for node in ("actor/1", "evaluator", "variables", "counter", "replay"):
      runs.node(running.workdir, node.replace("/", "_")).kill()
      running.wait_for(
        lambda node=node: f"Node {node} was killed by SIGKILL" in running.text
      )
      # More than what was under way alone would make.
      running.wait_for_steps(20)
    # The new evaluator has evaluated, and the new actor has made episodes.
    running.wait_for(lambda: rows_of(logs / "evaluator.csv") > evaluations)
    running.wait_for(lambda: made_since_restart(episodes) > 100)
    check_actors_do_not_repeat_themselves(episodes)

    freeze_and_thaw(running)
    kill_learner_beyond_a_checkpoint(running)

    learner = runs.node(running.workdir, "learner")
    # It writes none after these were damaged.
    learner.suspend()
    for path in checkpoints.rglob("*.npz"):
      path.write_bytes(b"damaged")
    learner.kill()
    assert running.end() == 1
    text = running.text
  restarted = re.findall(r"Node (\S+) was killed.*?; it is started", text)
  assert sorted(restarted) == sorted([
    "actor/1", "evaluator", "variables", "counter", "replay", "learner",
    "learner",
  ])
  assert "Node learner ended with exit code 69, so the run" in running.text
  assert "The learner cannot begin. No checkpoint can be read" in running.text
  assert "The same command resumes." in running.text


def rows_of(path):
  return len(runs.rows(path)) if path.exists() else 0


def lives(path):
  """Returns the returns in a log of episodes, in a list for each life."""
  rows = [row for row in runs.rows(path) if row["actor_steps"]]
  counts = [float(row["actor_steps"]) for row in rows]
  begins = [0, *(np.flatnonzero(np.diff(counts) < 0) + 1), len(rows)]
  return [
    [row["episode_return"] for row in rows[begin:end]]
    for begin, end in itertools.pairwise(begins)
  ]


def made_since_restart(path):
  first, *later = lives(path)
  return len(later[-1]) if later else 0


def check_actors_do_not_repeat_themselves(path):
  first, second = lives(path)
  number = min(len(first), len(second), 200)
  assert number > 50
  assert first[:number] != second[:number]


def freeze_and_thaw(running):
  # Two that call each other, for longer than a call may take.
  said = running.text
  frozen = [runs.node(running.workdir, name) for name in ("counter", "replay")]
  for process in frozen:
    process.suspend()
  time.sleep(12)
  before = runs.learner_steps(running.workdir)
  time.sleep(2)
  assert runs.learner_steps(running.workdir) == before
  for process in frozen:
    process.resume()
  running.wait_for_steps(20)
  assert "started again" not in running.text[len(said):]


def kill_learner_beyond_a_checkpoint(running):
  checkpoints = running.workdir / "checkpoints"
  log = running.workdir / "logs" / "learner.csv"
  learner = runs.node(running.workdir, "learner")

  def logged():
    return [int(float(row["learner_steps"])) for row in runs.rows(log)]

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


@pytest.mark.slow
def test_an_environment_hangs_then_crashes_then_fails_for_good(tmp_path):
  with runs.Running(
    tmp_path / "run",
    "--config.agent=impala",
    "--config.environment_options.fault=hang,crash,raise",
    # Checking the environment takes up to 1000 steps.
    "--config.environment_options.after=1050",
    f"--config.environment_options.marker={tmp_path / 'marker'}",
    "--config.environment_timeout_seconds=3.",
    *LONG,
    "--config.evaluation.episodes=0",
    config=FAULTY,
  ) as running:
    assert running.end() == 1
    text = running.text
  assert "(its environment hung); it is started again (1 of at most 5" in text
  log = (tmp_path / "run" / "logs" / "nodes" / "actor.log").read_text()
  assert "The environment has not returned for 3 s. Its last actions" in log
  assert re.search(r"faulty.py., line \d+ in step", log)
  assert "Node actor was killed by SIGABRT" in text
  assert "it is started again (2 of at most 5" in text
  assert "The environment failed 6 times within 600 s" in text
  assert "RuntimeError: the simulator is gone" in text
  assert "Its last actions, the newest last:" in text
  # That is not mended by another process.
  assert text.count("is started again") == 2
  actor = runs.rows(tmp_path / "run" / "logs" / "actor_0.csv")
  assert int(float(actor[-1]["environment_failures"])) == 5


@pytest.mark.parametrize("log", ["full", "removed"])
def test_the_reason_of_a_hopeless_exit_needs_no_disk(tmp_path, log):
  code = """
    import os
    from programs.launch import node_process
    from programs.nodes.failures import HopelessError

    def make():
      raise HopelessError("The checkpoints are damaged.")

    if {full}:
      full = os.open("/dev/full", os.O_WRONLY)
      os.dup2(full, 1)
      os.dup2(full, 2)
    node_process.run(make)
  """
  code = textwrap.dedent(code.format(full=log == "full"))
  directory = tmp_path if log == "full" else tmp_path / "removed"
  node = Node(
    "learner", [sys.executable, "-c", code], {}, directory / "learner.log"
  )
  node.start()
  assert node.process.wait(120) == node_process.EXIT_HOPELESS
  assert node.last_lines().endswith("  | The checkpoints are damaged.")
  node.reason.close()


def test_last_lines_are_those_of_the_newest_process(tmp_path):
  log = tmp_path / "actor.log"
  log.write_text("--- actor, 2026-01-01 00:00:00\nof an earlier run\n")
  node = Node("actor", [sys.executable, "-c", "print('new')"], {}, log)
  node.start()
  assert node.process.wait(120) == 0
  lines = node.last_lines().splitlines()
  assert lines[0].startswith("  | --- actor, ") and lines[1:] == ["  | new"]
  node.reason.close()


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
    disk / "run", "--config.checkpoint_every_seconds=1.", *LONG, config=PACED
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
