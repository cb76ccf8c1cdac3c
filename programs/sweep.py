"""Trains every run of a sweep that is not done yet.

  python -m programs.sweep configs/sweeps/agents.py --workdir=runs/agents

A sweep file has a function get_runs() that returns the runs' names with their
flags of programs.train. Each run has its directory below --workdir. What is
done is skipped and what was cut off goes on, so that the same command resumes a
sweep. A run that fails does not stop the others; it is named at the end.
summary.csv has a row for each run, averages.csv means over seeds: see
acme_stac.evaluation.summary. learning_curves.png has a panel for the runs whose
names differ in the last part.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from programs import machine

_POLL_SECONDS = 0.2
_REPORT_SECONDS = 30.0
_FINISHED = "finished.json"


def load_runs(path: str) -> dict[str, list[str]]:
  """Returns the runs of a sweep file: name -> flags of programs.train.

  Args:
    path: of the file; what follows a colon is given to its get_runs().

  Raises:
    UserError: if there is no such file, or it is no sweep.
  """
  path, _, argument = path.partition(":")
  spec = importlib.util.spec_from_file_location("sweep", path)
  try:
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
  except (AssertionError, OSError) as error:
    files = pathlib.Path("configs/sweeps").glob("[a-z]*.py")
    known = ", ".join(sorted(str(file) for file in files))
    raise machine.UserError(
      f"{path!r} is no sweep file. Sweeps: {known}."
    ) from error
  except Exception as error:  # A user's file may raise anything.
    raise machine.UserError(
      f"{path} raised {type(error).__name__}: {error}"
    ) from error
  if not hasattr(module, "get_runs"):
    raise machine.UserError(f"{path} has no function get_runs().")
  try:
    return {
      str(name): [str(flag) for flag in flags]
      for name, flags in module.get_runs(*[argument][: bool(argument)]).items()
    }
  except Exception as error:
    raise machine.UserError(
      f"get_runs() of {path} must return names of runs with their flags:"
      f" {type(error).__name__}: {error}"
    ) from error


def shares(parallel: int) -> list[set[int]]:
  """Returns the cores of each of so many runs at a time.

  Threads of runs that share cores wait for each other; with cores of their own
  two small runs on two cores are faster by a third and more. With fewer cores
  than runs each may use all.
  """
  cores = sorted(os.sched_getaffinity(0))
  if parallel > len(cores):
    return [set(cores)] * parallel
  return [set(cores[number::parallel]) for number in range(parallel)]


def is_done(directory: pathlib.Path, flags: Sequence[str]) -> bool:
  """Returns whether a run has ended well with just these flags."""
  try:
    return json.loads((directory / _FINISHED).read_text()) == list(flags)
  except (OSError, ValueError):
    return False


class Sweep:
  """Keeps a number of runs going until all are done."""

  def __init__(self, runs: Mapping[str, list[str]], workdir: pathlib.Path):
    self._workdir = workdir
    self._runs = dict(runs)
    self._waiting = [
      name for name in runs if not is_done(workdir / name, runs[name])
    ]
    self._done = len(runs) - len(self._waiting)
    self._running: dict[str, subprocess.Popen] = {}
    self._cores: dict[str, set[int]] = {}
    self._started = time.monotonic()
    self._todo = len(self._waiting)
    self.failed: list[str] = []

  def run(self, parallel: int) -> bool:
    """Runs what is missing; returns False if it was stopped by a signal."""
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda number, _: stop.append(number))
    reported = float("-inf")
    free = shares(parallel)
    try:
      while (self._waiting or self._running) and not stop:
        while self._waiting and free:
          self._start(self._waiting.pop(0), free.pop(0))
        free += self._collect()
        if time.monotonic() - reported > _REPORT_SECONDS:
          reported = time.monotonic()
          print(self.status(), flush=True)
        time.sleep(_POLL_SECONDS)
    finally:
      # Each saves a checkpoint and ends.
      for process in self._running.values():
        process.terminate()
      for process in self._running.values():
        process.wait()
    print(self.status(), flush=True)
    return not stop

  def _start(self, name: str, cores: set[int]):
    directory = self._workdir / name
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "sweep.log", "a") as log:
      self._running[name] = subprocess.Popen(
        [sys.executable, "-m", "programs.train", f"--workdir={directory}",
         *self._runs[name]],
        stdout=log,
        stderr=subprocess.STDOUT,
        # A Ctrl-C is for this process, which tells the runs.
        start_new_session=True,
      )
    self._cores[name] = cores
    # Before it has imported anything that makes threads.
    with contextlib.suppress(ProcessLookupError):
      os.sched_setaffinity(self._running[name].pid, cores)

  def _collect(self) -> list[set[int]]:
    """Takes note of runs that have ended; returns the cores they had."""
    free = []
    for name, process in list(self._running.items()):
      if process.poll() is None:
        continue
      del self._running[name]
      free.append(self._cores.pop(name))
      directory = self._workdir / name
      if process.returncode == 0:
        self._done += 1
        (directory / _FINISHED).write_text(json.dumps(self._runs[name]))
      else:
        self.failed.append(name)
        print(f"{name} failed, see {directory / 'sweep.log'}", flush=True)
    return free

  def status(self) -> str:
    """Returns one line: runs done, running, failed, and the time left."""
    parts = [f"{self._done}/{len(self._runs)} runs done"]
    if self._running:
      parts.append(f"running: {', '.join(self._running)}")
    if self.failed:
      parts.append(f"{len(self.failed)} failed")
    ended = self._todo - len(self._waiting) - len(self._running)
    left = self._todo - ended
    if ended and left:
      seconds = (time.monotonic() - self._started) / ended * left
      parts.append(f"about {seconds / 60:.0f} minutes left")
    return " | ".join(parts)


def write_summary(
  runs: Iterable[str], workdir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes tables and a plot of the runs that have a log; returns the files.

  summary.csv has a row for each run, averages.csv one for the runs whose names
  differ in the last part alone; learning_curves.png draws all.
  """
  from acme_stac.evaluation import plots, summary

  rows = {name: summary.summarise_run(workdir / name) for name in runs}
  rows = {name: row for name, row in rows.items() if row}
  curves = plots.plot_sweep(runs, workdir)
  return [
    summary.write_csv(
      workdir / "summary.csv",
      [{"run": name, **row} for name, row in rows.items()],
    ),
    summary.write_csv(
      workdir / "averages.csv", summary.average_over_seeds(rows)
    ),
    *([curves] if curves else []),
  ]


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(
    "programs.sweep", description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "file", help="what has get_runs(); file:text calls get_runs(text)"
  )
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True, help="directory of the runs"
  )
  parser.add_argument("--parallel", type=int, default=1, help="runs at a time")
  options = parser.parse_args(argv[1:])
  machine.check()
  if options.parallel < 1:
    raise machine.UserError(
      f"--parallel must be at least 1, got {options.parallel}."
    )
  workdir = options.workdir
  runs = load_runs(options.file)
  sweep = Sweep(runs, workdir)
  whole = sweep.run(options.parallel)
  for path in write_summary(runs, workdir):
    print(path)
  if not whole:
    print("Stopped. The same command goes on.")
  for name in sweep.failed:
    print(f"Failed: {name}", file=sys.stderr)
  return 1 if sweep.failed else 0


if __name__ == "__main__":
  try:
    sys.exit(main(sys.argv))
  except machine.UserError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
