"""Costs, programs under measurement, and output, for all benchmarks."""

import contextlib
import datetime
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import psutil

from programs.launch import node_process

_START_SECONDS = 300.0
_END_SECONDS = 40.0
_POLL_SECONDS = 0.1

Row = Mapping[str, Any]


class Cost(NamedTuple):
  """The cost of one call.

  Attributes:
    seconds: by the clock.
    cpu_seconds: of all threads of this process.
  """

  seconds: float
  cpu_seconds: float

  def per(self, number: int) -> "Cost":
    """Returns the cost of one of the steps that a call makes."""
    return Cost(self.seconds / number, self.cpu_seconds / number)


def cost_of(call: Callable[[], Any], calls: int) -> Cost:
  """Returns the mean cost of one of several calls."""
  started, cpu_started = time.perf_counter(), time.process_time()
  for _ in range(calls):
    call()
  return Cost(
    time.perf_counter() - started, time.process_time() - cpu_started
  ).per(calls)


def steady_cost(call: Callable[[], Any], seconds: float) -> Cost:
  """Returns the mean cost of a call over so many seconds, once warm."""
  calls = 1
  # The first calls compile, the second too if its arguments are of other kinds.
  cost_of(call, 3)
  while True:
    cost = cost_of(call, calls)
    if cost.seconds * calls >= seconds:
      return cost
    calls = max(2 * calls, int(1.1 * seconds / cost.seconds))


def machine() -> dict[str, Any]:
  """Describes the machine, the packages and the state of this measurement."""
  result: dict[str, Any] = {
    "command": sys.argv[1:],
    "packages": {
      name: metadata.version(name) for name in ("jax", "jaxlib", "dm-haiku")
    },
    "machine": platform.platform(),
    "processor": platform.processor(),
    "cores": len(os.sched_getaffinity(0)),
    "load_average": os.getloadavg()[0],
    "python": platform.python_version(),
    "date": datetime.date.today().isoformat(),
  }
  with contextlib.suppress(OSError):
    text = pathlib.Path("/proc/cpuinfo").read_text()
    if model := re.search(r"^model name\s*:\s*(.*)", text, re.MULTILINE):
      result["processor"] = model[1]
  # An installed package has no history.
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    result["commit"] = subprocess.run(
      ["git", "rev-parse", "--short", "HEAD"],
      capture_output=True, text=True, check=True,
    ).stdout.strip()
  return result


class Program:
  """A program that is observed while it runs.

  Attributes:
    started: when it was started, by time.monotonic().
    pid: of its process.
  """

  def __init__(self, process: subprocess.Popen, output: pathlib.Path):
    self._process = process
    self._output = output
    self.started = time.monotonic()
    self.pid = process.pid

  def check(self):
    """Raises RuntimeError if the program has ended."""
    if self._process.poll() is not None:
      raise RuntimeError(f"The program ended: {self._tail()}")

  def wait_for(
    self, condition: Callable[[], Any], seconds: float = _START_SECONDS
  ):
    """Waits until a condition holds.

    Raises:
      RuntimeError: if the program ends, or has run for so many seconds, before
        it does.
    """
    while not condition():
      self.check()
      if time.monotonic() - self.started > seconds:
        raise RuntimeError(
          f"The program did not start in {seconds:.0f} s: {self._tail()}"
        )
      time.sleep(_POLL_SECONDS)

  def _tail(self) -> str:
    return " ".join(self._output.read_text().splitlines()[-3:])


@contextlib.contextmanager
def running(
  command: Sequence[str],
  directory: pathlib.Path,
  environment: Mapping[str, str] | None = None,
  end_seconds: float = _END_SECONDS,
) -> Iterator[Program]:
  """Runs a program, and ends it and its child processes afterwards.

  Args:
    command: the command line.
    directory: directory for the program's output.
    environment: environment variables to add to this process's.
    end_seconds: seconds that the program has to end by itself.
  """
  output = directory / "output"
  with open(output, "w") as file:
    process = subprocess.Popen(
      command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
      # Unbuffered, so that errors can quote its last lines.
      env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
    )
  try:
    yield Program(process, output)
  finally:
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
      family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(end_seconds)
    for member in [process, *family]:
      with contextlib.suppress(psutil.NoSuchProcess):
        member.kill()
    process.wait()


def processes_of(pid: int) -> Iterator[tuple[str, psutil.Process]]:
  """Yields the processes of a run, each with the name of its node.

  Args:
    pid: of the launching process; it and what belongs to no node are called
      "launcher".
  """
  launcher = psutil.Process(pid)
  for process in [launcher, *launcher.children(recursive=True)]:
    try:
      name = process.environ().get(node_process.NODE_NAME, "launcher")
    except psutil.Error:  # It has ended.
      continue
    yield name, process


def to_json(result: Mapping[str, Any]) -> str:
  """Returns figures as JSON, with null for those that are not finite."""

  def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
      return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
      return [plain(part) for part in value]
    is_lost = isinstance(value, float) and not math.isfinite(value)
    return None if is_lost else value

  return json.dumps(plain(result), indent=2, allow_nan=False)


def number(value: float | None, form: str) -> str:
  """Returns a number in a format; "" for None."""
  return "" if value is None else format(value, form)


def table(
  rows: Iterable[Row],
  columns: Mapping[str, str | Callable[[Row], str]],
) -> str:
  """Returns a Markdown table.

  Args:
    rows: the rows; one with "error" shows that after its first cell.
    columns: title -> cell, as a format of the row's fields, such as
      "{rate:.0f}", or as a function of the row.
  """
  lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
  for row in rows:
    lines.append(f"| {' | '.join(cells(row, columns))} |")
  return "\n".join(lines)


def cells(
  row: Row, columns: Mapping[str, str | Callable[[Row], str]]
) -> list[str]:
  """Returns the cells of a row of `table`."""
  formats = list(columns.values())
  if "error" in row:
    formats[1:] = ["{error}", *[""] * (len(formats) - 2)]
  return [
    cell.format(**row) if isinstance(cell, str) else cell(row)
    for cell in formats
  ]
