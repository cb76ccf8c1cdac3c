"""Runs of the command, with real processes."""

import csv
import os
import pathlib
import subprocess
import sys
import time

import psutil

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


def wait_for(condition, seconds=300):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "timed out"
    time.sleep(0.1)


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
