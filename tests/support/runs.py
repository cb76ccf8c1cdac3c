"""Runs of the command, with real processes."""

import csv
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import psutil

from acme_stac import checkpointing
from programs.launch import flags as run_flags
from programs.launch import session
from programs.run import validation

SMALL = (
  "--config.stac.torso_sizes=(16,)",
  "--config.stac.head_sizes=(16,)",
  "--config.evaluation.episodes=4",
  "--config.log_every_seconds=0.05",
)


def command(workdir, *arguments, config="configs/small.py:catch"):
  return [
    sys.executable,
    "-m",
    "programs.train",
    f"--config={config}",
    f"--workdir={workdir}",
    *arguments,
  ]


def environment():
  # Without the devices that conftest makes: a batch of 32 fits them, but it
  # costs compile time.
  return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}


def describe(workdir, *arguments, config="configs/small.py:catch"):
  """Returns a run and its flags, as the command has them."""
  argv = [f"--config={config}", f"--workdir={workdir}", *arguments]
  parsed = run_flags.parse(argv)
  return session.describe(parsed), parsed


def train(workdir, *arguments, **kwargs):
  """Does what the command does, in this process; returns its exit code."""
  described, parsed = describe(workdir, *arguments, **kwargs)
  with described.lock:
    return session.launch(described, parsed, {})


def run(workdir, *arguments, **kwargs):
  return subprocess.run(
    command(workdir, *arguments, **kwargs),
    capture_output=True,
    text=True,
    env=environment(),
    timeout=500,
  )


def rows(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def node(workdir, name):
  """The process of a node."""
  (found,) = [
    process
    for process in nodes_of(workdir)
    if os.readlink(f"/proc/{process.pid}/fd/1").endswith(f"/{name}.log")
  ]
  return found


def nodes_of(workdir):
  """Processes of a run: they all have its log directory open."""
  found = []
  for process in psutil.process_iter(["cmdline"]):
    if "process_entry" in " ".join(process.info["cmdline"] or []):
      try:
        files = os.readlink(f"/proc/{process.pid}/fd/1")
      except OSError:
        continue
      if files.startswith(str(workdir)):
        found.append(process)
  return found


def start(workdir, *arguments):
  return subprocess.Popen(
    command(workdir, *arguments),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=environment(),
  )


class Running:
  """The command, with real processes, which end with the test."""

  def __init__(self, workdir, *arguments, **kwargs):
    self.workdir = workdir
    self.output = workdir.parent / f"{workdir.name}.output"
    with open(self.output, "w") as file:
      self.process = subprocess.Popen(
        command(workdir, *arguments, **kwargs),
        stdout=file, stderr=subprocess.STDOUT, env=environment(),
      )

  def __enter__(self):
    return self

  def __exit__(self, *unused_args):
    self.process.kill()
    self.process.wait()
    for process in nodes_of(self.workdir):
      process.kill()

  @property
  def text(self):
    return self.output.read_text()

  def wait_for(self, condition, seconds=300):
    """Waits until something is so, while the run goes on."""

    def met():
      assert self.process.poll() is None, self.text
      return condition()

    wait_for(met, seconds)

  def wait_for_steps(self, more=5):
    """Waits until the learner has done so many more updates."""
    before = learner_steps(self.workdir)
    self.wait_for(lambda: learner_steps(self.workdir) >= before + more)

  def end(self, seconds=300):
    """Returns the exit code, once the run has ended with all its nodes."""
    code = self.process.wait(seconds)
    assert not nodes_of(self.workdir)
    return code


def states(workdir):
  """Arrays of the newest checkpoint, by name."""
  newest = checkpointing.list_checkpoints(workdir / "checkpoints")[-1]
  with np.load(newest) as file:
    return {name: file[name] for name in file.files if name != "metadata"}


def check_variant(workdir, updates):
  """Checks what every run of a self-tuning agent leaves behind."""
  learner = rows(workdir / "logs" / "learner.csv")
  assert int(float(learner[-1]["learner_steps"])) == updates
  assert float(learner[-1]["skipped_updates"]) == 0
  sigmas = {row["sigma_discount_head0"] for row in learner}
  assert len(sigmas) > 1
  assert all(0.0 <= float(sigma) <= 1.0 for sigma in sigmas)
  assert -1.0 <= float(learner[-1]["gradient_cosine"]) <= 1.0
  assert rows(workdir / "logs" / "evaluator.csv")
  assert (workdir / "plots" / "metagradient.png").stat().st_size > 5000


def wait_for(condition, seconds=300):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "timed out"
    time.sleep(0.1)


def wait_until_gone(pid):
  """Waits for the end of a process, whose parent need not take note of it."""

  def gone():
    try:
      return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
      return True

  wait_for(gone, 60)


def learner_steps(workdir):
  path = pathlib.Path(workdir) / "logs" / "learner.csv"
  if not path.exists():
    return 0
  found = [r["learner_steps"] for r in rows(path)]
  return int(float(found[-1] or 0)) if found else 0


def make_experiment(workdir, **changes):
  from configs import small

  config = small.get_config("catch")
  for name, value in changes.items():
    config.update_from_flattened_dict({name: value})
  return validation.make_experiment(config, 1, str(workdir))
