"""Trains all unfinished runs of a sweep.

  python -m programs.sweep configs/sweeps/agents.py --workdir=runs/agents

A sweep file has a function get_runs() that maps the runs' names to their flags
of programs.train. Each run has a directory below --workdir. The same command
resumes a sweep: it skips finished runs and continues interrupted ones. A run
that fails does not stop the others; it is named at the end. summary.csv has a
row for each run; averages.csv has means over seeds with 95% bootstrap intervals
(see acme_stac.evaluation.summary and .statistics): over runs whose names differ
only in a number at their end. learning_curves.png has a
panel for each group of runs whose names differ only in the last part. Runs side
by side (--launch=on_device --seeds=8) are one run of the sweep but several of
the tables, of the names NAME/0, NAME/1, ...

--minutes=10 ends the sweep after so long, for a machine that is yours in slices
of time: the same command, again and again, finishes it.

The exit code is 0 if all runs are finished or the minutes are over, 1 if some
failed or the summary could not be written, and 2 for a user's error. After
Ctrl-C or SIGTERM, a sweep ends by that signal, so that a shell's loop stops
too. However it ends, its runs save their checkpoints and end with it.
"""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import pandas as pd

import acme_stac
from acme_stac import evaluation
from acme_stac.evaluation import logs
from acme_stac.evaluation.text import counted, printable
from programs import commands
from programs.launch import child, ending, modes, progress
from programs.launch import flags as run_flags
from programs.run import arguments, machine, paths, user_file
from programs.run import workdir as workdir_lib
from programs.run.errors import UserError

_POLL_SECONDS = 0.2
_CONFIG = "config.json"
_FINISHED = "finished.json"
_LOG = "sweep.log"
_SUMMARIES = ("summary.csv", "averages.csv", "learning_curves.png")


def load_runs(path: str) -> dict[str, list[str]]:
  """Returns the runs of a sweep file: name -> flags of programs.train.

  Args:
    path: path of the file, optionally followed by a colon and the argument of
      get_runs().

  Raises:
    UserError: if there is no such file, or it is not a sweep.
  """
  runs = user_file.call(path, "get_runs", "The sweep", "configs/sweeps")
  if not isinstance(runs, Mapping) or not runs:
    raise UserError(
      f"get_runs() of {path} must return a dictionary of runs, got {runs!r}."
    )
  for name, flags in runs.items():
    # An absolute path begins with an empty part.
    if not isinstance(name, str) or {"", ".", ".."} & set(name.split("/")):
      raise UserError(
        f"{path}: {name!r} must be a relative path without empty parts, '.' and"
        " '..'."
      )
    if isinstance(flags, str) or not all(isinstance(x, str) for x in flags):
      raise UserError(
        f"{path}: flags of {name!r} must be a list of strings, got {flags!r}."
      )
  return {name: list(flags) for name, flags in runs.items()}


def check_flags(runs: Mapping[str, list[str]], workdir: pathlib.Path):
  """Raises UserError for runs that programs.train cannot begin here."""
  for name, flags in runs.items():
    directory = str(workdir / name)
    try:
      parsed = run_flags.parse([f"--workdir={directory}", *flags])
      acme_stac.make_config(parsed.config.agent, parsed.config.domain)
    except (UserError, ValueError) as error:
      raise UserError(f"Run {name!r}: {error}") from error
    # The run's --workdir would override the sweep's.
    if parsed.workdir != directory:
      raise UserError(
        f"Run {name!r}: a sweep gives each run its --workdir. Leave it out."
      )
    machine.check(modes.MODES[parsed.launch].is_distributed)


def shares(parallel: int) -> list[set[int]]:
  """Returns the cores for each of `parallel` simultaneous runs.

  Two small runs on two cores are at least a third faster with cores of their
  own, because threads that share cores wait for each other. With fewer cores
  than runs, each run may use all of them.
  """
  cores = sorted(os.sched_getaffinity(0))
  if parallel > len(cores):
    return [set(cores)] * parallel
  return [set(cores[number::parallel]) for number in range(parallel)]


def is_done(directory: pathlib.Path, flags: Sequence[str]) -> bool:
  """Returns whether a run has finished with exactly these flags."""
  try:
    return json.loads((directory / _FINISHED).read_text()) == list(flags)
  except (OSError, ValueError):
    return False


def members(directory: pathlib.Path) -> list[pathlib.Path]:
  """Returns the work directories of a run: its own, or those side by side."""
  if (directory / _CONFIG).exists():
    return [directory]
  return workdir_lib.runs_below(directory) or [directory]


def share_made(directory: pathlib.Path) -> float:
  """Returns the fraction of its steps that a run has done; 0 if unknown.

  Runs side by side are equally far, so the first is looked at.
  """
  try:
    first = members(directory)[0]
    described = json.loads((first / _CONFIG).read_text())
    steps = logs.read_learner(first)["environment_steps"]
    share = steps.iloc[-1] / described["config"]["num_environment_steps"]
    return min(float(share), 1.0)
  except (OSError, ValueError, LookupError):  # Missing or half written.
    return 0.0


class Sweep:
  """Keeps a number of runs going until all are finished.

  Attributes:
    failed: names of the runs that failed.
    out_of_time: whether the runs were ended because their time was over.
  """

  def __init__(self, runs: Mapping[str, list[str]], workdir: pathlib.Path):
    self._workdir = workdir
    self._runs = dict(runs)
    self._waiting = [
      name for name in runs if not is_done(workdir / name, runs[name])
    ]
    self._done = len(runs) - len(self._waiting)
    # Name -> the process and its cores.
    self._running: dict[str, tuple[subprocess.Popen, set[int]]] = {}
    self.failed: list[str] = []
    self.out_of_time = False
    # For the estimate of the time left: interrupted runs are partly done.
    self._started = time.monotonic()
    self._shares = {
      name: share_made(workdir / name) for name in self._waiting
    }
    self._left_at_start = len(self._waiting) - sum(self._shares.values())
    self._progress = progress.Progress(describe=lambda _: self.status())

  def run(
    self,
    parallel: int,
    stop: ending.StopRequest,
    seconds: float = math.inf,
  ):
    """Starts the runs in order.

    Returns when all ended, `stop` is set, or after so many seconds.
    """
    free = shares(parallel)
    try:
      while (self._waiting or self._running) and not stop:
        if time.monotonic() - self._started > seconds:
          self.out_of_time = True
          break
        while self._waiting and free:
          name = self._waiting.pop(0)
          try:
            self._start(name, free[0])
            free.pop(0)
          except OSError as error:  # Others may be on another disk.
            self._fail(name, str(error))
        free += self._collect()
        self._progress.show(self)
        time.sleep(_POLL_SECONDS)
    finally:
      # Each run then saves a checkpoint and ends.
      for process, _ in self._running.values():
        process.terminate()
      for process, _ in self._running.values():
        process.wait()
    self._progress.show(self)
    self._progress.close()

  def end_at_once(self):
    """Ends the runs and all their processes, without checkpoints."""
    processes = [process for process, _ in self._running.values()]
    for process in processes:
      # The second signal ends a run at once; the first asked it to stop.
      process.send_signal(signal.SIGINT)
    ending.wait(
      lambda: all(process.poll() is not None for process in processes), 5.0
    )
    for process in processes:
      process.kill()

  def _start(self, name: str, cores: set[int]):
    directory = self._workdir / name
    with open(directory / _LOG, "a") as log:
      process = subprocess.Popen(
        child.command(
          [sys.executable, "-m", "programs.train", f"--workdir={directory}",
           *self._runs[name]],
          cores,
        ),
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C reaches only this process, which stops the runs.
        start_new_session=True,
      )
    self._running[name] = process, cores

  def _collect(self) -> list[set[int]]:
    """Records the runs that have ended; returns the cores they had."""
    free = []
    for name, (process, cores) in list(self._running.items()):
      if process.poll() is None:
        continue
      del self._running[name]
      free.append(cores)
      directory = self._workdir / name
      if process.returncode:
        self._fail(name, f"see {directory / _LOG}")
        continue
      try:
        (directory / _FINISHED).write_text(json.dumps(self._runs[name]))
      except OSError as error:
        self._fail(name, f"as {_FINISHED} could not be written: {error}")
        continue
      self._done += 1
      self._shares[name] = 1.0
    return free

  def summarise(self) -> str:
    """Returns how much is done, in words."""
    self._shares |= {
      name: share_made(self._workdir / name) for name in self._running
    }
    left = len(self._shares) - sum(self._shares.values())
    return (
      f"{self._done} of {counted(len(self._runs), 'run')} done,"
      f" {1 - left / len(self._runs):.0%} of all steps"
    )

  def _fail(self, name: str, why: str):
    self.failed.append(name)
    self._shares[name] = 1.0  # The run will do no more steps.
    self._progress.note(f"{printable(name)} failed, {printable(why)}")

  def status(self) -> list[str]:
    """Returns the progress: finished and failed runs, time left, names."""
    running = {name: share_made(self._workdir / name) for name in self._running}
    self._shares |= running
    parts = [f"{self._done}/{len(self._runs)} runs done"]
    if self.failed:
      parts.append(f"{len(self.failed)} failed")
    left = len(self._shares) - sum(self._shares.values())
    made = self._left_at_start - left
    if made > 0 and left:
      seconds = (time.monotonic() - self._started) / made * left
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

  summary.csv has a row for each run, averages.csv one for each group of
  finished runs whose names differ only in the last part; learning_curves.png
  draws all.

  Raises:
    OSError: if they cannot be written.
  """
  rows = {}
  every = {
    str(member.relative_to(workdir)): (workdir / run, flags)
    for run, flags in runs.items()
    for member in members(workdir / run)
  }
  for name, (directory, flags) in every.items():
    try:
      row = evaluation.summary.summarise_run(workdir / name)
    except (OSError, ValueError, LookupError) as error:
      print(
        f"{printable(name)} is left out of the summary, because its log cannot"
        f" be read: {type(error).__name__}: {printable(error)}",
        file=sys.stderr,
      )
      continue
    if row:
      rows[name] = {"finished": is_done(directory, flags), **row}
  finished = {name: row for name, row in rows.items() if row["finished"]}
  tables = {
    "summary.csv": [{"run": name, **row} for name, row in rows.items()],
    "averages.csv": evaluation.statistics.average_over_seeds(finished),
  }
  files = []
  for name, table in tables.items():
    if table:
      pd.DataFrame(table).to_csv(workdir / name, index=False)
      files.append(workdir / name)
  curves = evaluation.figures.plot_sweep(rows, workdir)
  return [*files, curves] if curves else files


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code, or ends by a signal it received.

  Raises:
    UserError: if an argument is wrong.
  """
  parser = arguments.Parser("programs.sweep", __doc__)
  parser.add_argument(
    "file", metavar="FILE",
    help="Python file with get_runs(); file:text calls get_runs(text)",
  )
  parser.add_argument(
    "--workdir", type=paths.path, required=True, help="directory of the runs"
  )
  parser.add_argument(
    "--parallel", type=int, default=1, help="runs at a time"
  )
  parser.add_argument(
    "--minutes", type=float, default=math.inf,
    help="end after so long; the same command continues",
  )
  options = parser.parse_args(argv)
  if options.parallel < 1:
    raise UserError(f"--parallel must be at least 1, got {options.parallel}.")
  if not options.minutes > 0:
    raise UserError(f"--minutes must be more than 0, got {options.minutes:g}.")
  workdir = options.workdir
  runs = load_runs(options.file)
  check_flags(runs, workdir)
  for directory in (workdir, *(workdir / name for name in runs)):
    paths.make_directory(directory, "--workdir")
  paths.check_files((workdir / name for name in _SUMMARIES), "--workdir")
  sweep = Sweep(runs, workdir)
  with ending.StopRequest(
    "Stopping; what the runs have learned is being saved.", sweep.end_at_once
  ) as stop:
    sweep.run(options.parallel, stop, 60.0 * options.minutes)
    for name in sweep.failed:
      print(f"Failed: {printable(name)}", file=sys.stderr)
    code = 1 if sweep.failed else 0
    try:
      for path in write_summary(runs, workdir):
        print(printable(path))
    except OSError as error:
      print(f"The summary could not be written: {error}", file=sys.stderr)
      code = 1
  if sweep.out_of_time:
    print(
      f"Ended after {options.minutes:g} minutes: {sweep.summarise()}. The same"
      " command continues."
    )
  if stop.number is not None:
    print("Stopped. The same command continues.", flush=True)
    signal.signal(stop.number, signal.SIG_DFL)
    os.kill(os.getpid(), stop.number)
  return code


if __name__ == "__main__":
  commands.run(main)
