"""Trains every run of a sweep that is not done yet.

  python -m programs.sweep configs/sweeps/agents.py --workdir=runs/agents

A sweep file has a function get_runs() that returns the runs' names with their
flags of programs.train. Each run has its directory below --workdir. What is
done is skipped and what was cut off goes on, so that the same command resumes a
sweep. A run that fails does not stop the others; it is named at the end.
summary.csv has a row for each run, averages.csv means over seeds: see
acme_stac.evaluation.summary. learning_curves.png has a panel for the runs whose
names differ in the last part.

The exit code is 0 if all runs are done, 1 if some failed or the summary could
not be written, 2 for what the user can mend. Stopped by Ctrl-C or SIGTERM, a
sweep ends by that signal, so that a shell's loop stops as well. However it
ends, its runs save their checkpoints and end with it.
"""

import csv
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from acme_stac.evaluation.text import printable
from programs import commands
from programs.launch import ending, progress
from programs.run import machine

_POLL_SECONDS = 0.2
_FINISHED = "finished.json"
_OF_A_RUN = (_FINISHED, "sweep.log")
_SUMMARIES = ("summary.csv", "averages.csv", "learning_curves.png")
_MAX_PARALLEL = 1000
# Of the end of a log; a row of many metaparameters has some thousands.
_TAIL_BYTES = 2**16


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
      f"{path!r} is no file of Python (.py) that can be read. Sweeps: {known}."
    ) from error
  # A user's file may raise anything, or end the program.
  except (Exception, SystemExit) as error:
    raise machine.UserError(
      f"{path} raised {type(error).__name__}: {error}"
    ) from error
  if not hasattr(module, "get_runs"):
    raise machine.UserError(f"{path} has no function get_runs().")
  try:
    runs = module.get_runs(*[argument][: bool(argument)])
    _check_runs(runs)
    return {name: list(flags) for name, flags in runs.items()}
  except (Exception, SystemExit) as error:
    raise machine.UserError(
      f"get_runs() of {path} must return names of runs with their flags:"
      f" {type(error).__name__}: {error}"
    ) from error


def _check_runs(runs: Mapping[str, Sequence[str]]):
  """Raises ValueError unless names are directories of their own, with flags."""
  if not isinstance(runs, Mapping):
    raise ValueError(f"they must be a dictionary, got {type(runs).__name__}.")
  if not runs:
    raise ValueError("there is no run.")
  for name, flags in runs.items():
    # An absolute path begins with an empty part.
    if not isinstance(name, str) or {"", ".", ".."} & set(name.split("/")):
      raise ValueError(
        f"{name!r} must be a relative path without empty parts, '.' and '..'."
      )
    for directory in map(str, pathlib.PurePath(name).parents):
      if directory in runs:
        raise ValueError(
          f"{name!r} must not lie in the directory of the run {directory!r}."
        )
    if not isinstance(flags, list | tuple) or not all(
      isinstance(flag, str) for flag in flags
    ):
      raise ValueError(
        f"flags of {name!r} must be a list of texts, got {flags!r}."
      )


def check_flags(runs: Mapping[str, list[str]], workdir: pathlib.Path):
  """Raises UserError for flags that programs.train does not take."""
  # Not before machine.check has said what cannot be imported.
  from absl import flags as absl_flags

  import acme_stac
  from programs.run import flags as run_flags

  for name, flags in runs.items():
    # Its own --workdir would win over the sweep's.
    if run_flags.value(flags, "workdir") is not None:
      raise machine.UserError(
        f"Run {name!r}: a sweep gives each run its --workdir. Leave it out."
      )
    try:
      parsed = run_flags.parse(
        ["programs.train", f"--workdir={workdir / name}", *flags],
        absl_flags.FlagValues(),
      )
      acme_stac.make_config(parsed.config.agent, parsed.config.domain)
    except (machine.UserError, ValueError) as error:
      raise machine.UserError(f"Run {name!r}: {error}") from error
    except SystemExit as error:
      raise machine.UserError(
        f"Run {name!r}: its flags ask for help and train nothing."
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


def share_made(directory: pathlib.Path) -> float:
  """Returns which share of its steps a run has made; 0 if that is unknown."""
  try:
    described = json.loads((directory / "config.json").read_text())
    with open(directory / "logs" / "learner.csv", "rb") as file:
      names = file.readline()
      size = os.fstat(file.fileno()).st_size
      file.seek(max(file.tell(), size - _TAIL_BYTES))
      # What follows the last end of a line is half written.
      *_, values, _ = file.read().split(b"\n")
    header, row = csv.reader([names.decode(), values.decode()])
    steps = float(dict(zip(header, row, strict=True))["environment_steps"])
    share = steps / described["config"]["num_environment_steps"]
  except Exception:  # They may be missing, half written, or another program's.
    return 0.0
  return min(share, 1.0) if share > 0 else 0.0


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
    # Which share of each is to be made: some were cut off.
    self._todo = {
      name: 1.0 - share_made(workdir / name) for name in self._waiting
    }
    self.failed: list[str] = []
    self._progress = progress.Progress(describe=lambda _: self.status())

  def run(self, parallel: int, stop: ending.StopRequest):
    """Runs what is missing, or until it is to stop."""
    free = shares(parallel)
    try:
      while (self._waiting or self._running) and not stop:
        while self._waiting and free:
          name = self._waiting.pop(0)
          # Another sweep may have done it since this one began.
          if is_done(self._workdir / name, self._runs[name]):
            self._done += 1
            continue
          try:
            self._start(name, free[0])
            free.pop(0)
          except OSError as error:  # Others may be on another disk.
            self._fail(name, str(error))
        free += self._collect()
        self._progress.show(self)
        time.sleep(_POLL_SECONDS)
    finally:
      # Each saves a checkpoint and ends.
      for process in self._running.values():
        process.terminate()
      for process in self._running.values():
        process.wait()
    self._progress.show(self)
    self._progress.close()

  def end_at_once(self):
    """Ends the runs and all their processes, without checkpoints."""
    running = list(self._running.values())
    for process in running:
      # The second signal that they get, as the first was to stop.
      process.send_signal(signal.SIGINT)
    if not ending.wait(
      lambda: all(process.poll() is not None for process in running), 5.0
    ):
      for process in running:
        process.kill()

  def _start(self, name: str, cores: set[int]):
    # Not before machine.check has said what cannot be imported.
    from programs.launch import processes

    parent = os.getpid()

    def prepare():
      # Before anything makes threads.
      os.sched_setaffinity(0, cores)
      processes.die_with_parent(parent)

    directory = self._workdir / name
    with open(directory / "sweep.log", "a") as log:
      self._running[name] = subprocess.Popen(
        [sys.executable, "-m", "programs.train", f"--workdir={directory}",
         *self._runs[name]],
        stdout=log,
        stderr=subprocess.STDOUT,
        # A Ctrl-C is for this process, which tells the runs.
        start_new_session=True,
        preexec_fn=prepare,
      )
    self._cores[name] = cores

  def _collect(self) -> list[set[int]]:
    """Takes note of runs that have ended; returns the cores they had."""
    free = []
    for name, process in list(self._running.items()):
      if process.poll() is None:
        continue
      del self._running[name]
      free.append(self._cores.pop(name))
      directory = self._workdir / name
      if process.returncode:
        self._fail(name, f"see {directory / 'sweep.log'}")
        continue
      try:
        (directory / _FINISHED).write_text(json.dumps(self._runs[name]))
        self._done += 1
      except OSError as error:
        self._fail(name, f"as it could not be noted that it is done: {error}")
    return free

  def _fail(self, name: str, why: str):
    self.failed.append(name)
    self._progress.note(f"{printable(name)} failed, {printable(why)}")

  def status(self) -> list[str]:
    """Returns how many runs are done, the time left, and what runs."""
    parts = [f"{self._done}/{len(self._runs)} runs done"]
    running = {name: share_made(self._workdir / name) for name in self._running}
    if self.failed:
      parts.append(f"{len(self.failed)} failed")
    left = {
      **dict.fromkeys(self._todo, 0.0),
      **{name: self._todo[name] for name in self._waiting},
      **{name: 1.0 - share for name, share in running.items()},
    }
    made = sum(self._todo[name] - left[name] for name in left)
    missing = sum(left.values())
    if made > 0 and missing:
      seconds = (time.monotonic() - self._started) / made * missing
      parts.append(f"about {seconds / 60:.0f} minutes left")
    if running:
      named = [
        f"{printable(name)} ({share:.0%})" if share else printable(name)
        for name, share in running.items()
      ]
      parts.append(f"running: {', '.join(named)}")
    return parts


def write_summary(
  runs: Mapping[str, list[str]], workdir: pathlib.Path
) -> list[pathlib.Path]:
  """Writes tables and a plot of the runs that have a log; returns the files.

  summary.csv has a row for each run, averages.csv one for the finished runs
  whose names differ in the last part alone; learning_curves.png draws all. A
  run whose log cannot be read is said to be left out.

  Raises:
    OSError: if they cannot be written.
  """
  from acme_stac.evaluation import statistics, summary
  from acme_stac.evaluation.figures import run as plots

  rows = {}
  for name, flags in runs.items():
    try:
      row = summary.summarise_run(workdir / name)
    except Exception as error:  # Another program's file may raise anything.
      print(
        f"{printable(name)} is left out of the summary, as its log cannot be"
        f" read: {type(error).__name__}: {printable(error)}",
        file=sys.stderr,
      )
      continue
    if row:
      rows[name] = {"finished": is_done(workdir / name, flags), **row}
  finished = {name: row for name, row in rows.items() if row["finished"]}
  curves = plots.plot_sweep(rows, workdir)
  tables = {
    "summary.csv": [{"run": name, **row} for name, row in rows.items()],
    "averages.csv": statistics.average_over_seeds(finished),
  }
  return [
    *(
      summary.write_csv(workdir / name, table)
      for name, table in tables.items() if table
    ),
    *([curves] if curves else []),
  ]


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code, or ends by the signal it got.

  Raises:
    UserError: if anything about its arguments cannot work.
  """
  parser = commands.Parser("programs.sweep", __doc__)
  parser.add_argument(
    "file", metavar="FILE",
    help="what has get_runs(); file:text calls get_runs(text)",
  )
  parser.add_argument(
    "--workdir", type=machine.path, required=True, help="directory of the runs"
  )
  parser.add_argument(
    "--parallel", type=int, default=1, help="runs at a time"
  )
  options = parser.parse_args(argv[1:])
  machine.check()
  if not 1 <= options.parallel <= _MAX_PARALLEL:
    raise machine.UserError(
      f"--parallel must be from 1 to {_MAX_PARALLEL}, got {options.parallel}."
    )
  workdir = options.workdir
  runs = load_runs(options.file)
  check_flags(runs, workdir)
  for directory in (workdir, *(workdir / name for name in runs)):
    machine.make_directory(directory, "--workdir")
  machine.check_files(
    [
      *(workdir / name for name in _SUMMARIES),
      *(workdir / name / file for name in runs for file in _OF_A_RUN),
    ],
    "--workdir",
  )
  sweep = Sweep(runs, workdir)
  with ending.StopRequest(
    "Stopping; the runs are saving their checkpoints.", sweep.end_at_once
  ) as stop:
    sweep.run(options.parallel, stop)
    for name in sweep.failed:
      print(f"Failed: {printable(name)}", file=sys.stderr)
    code = 1 if sweep.failed else 0
    try:
      for path in write_summary(runs, workdir):
        print(printable(path))
    except OSError as error:
      print(f"The summary could not be written: {error}", file=sys.stderr)
      code = 1
  if stop.number is not None:
    print("Stopped. The same command goes on.", flush=True)
    signal.signal(stop.number, signal.SIG_DFL)
    os.kill(os.getpid(), stop.number)
  return code


if __name__ == "__main__":
  commands.run(main, sys.argv)
