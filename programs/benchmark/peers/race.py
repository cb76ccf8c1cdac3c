"""Runs one contender and records its progress."""

import pathlib
import subprocess
import tempfile
import time
from typing import NamedTuple

from programs.benchmark import measuring
from programs.benchmark.peers.contenders import Contender

_START_SECONDS = 240.0
_POLL_SECONDS = 0.25


class Point(NamedTuple):
  """A contender's progress.

  Attributes:
    seconds: since its first report.
    steps: environment steps.
    episode_return: of the last episodes of training; None if unknown yet.
  """

  seconds: float
  steps: int
  episode_return: float | None


def run(contender: Contender, warm_up: float, seconds: float) -> list[Point]:
  """Returns a contender's progress from its first report on.

  Args:
    contender: the program to run.
    warm_up: seconds after the first report that are not counted.
    seconds: of the measurement after that.

  Raises:
    RuntimeError: if it ends by itself, does not start, or reports too rarely.
  """
  with tempfile.TemporaryDirectory() as name:
    directory = pathlib.Path(name)
    output = directory / "output"
    with open(output, "w") as file:
      process = subprocess.Popen(
        contender.command(directory),
        stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
      )
    started = time.monotonic()
    first: float | None = None
    points: list[Point] = []
    try:
      while first is None or (
        time.monotonic() - first < warm_up + seconds
      ):
        time.sleep(_POLL_SECONDS)
        now = time.monotonic()
        if process.poll() is not None or (
          first is None and now - started > _START_SECONDS
        ):
          tail = " ".join(output.read_text().splitlines()[-3:])
          raise RuntimeError(f"It ended, or did not start: {tail}")
        state = contender.read(directory)
        if state is not None:
          first = now if first is None else first
          points.append(Point(now - first, *state))
    finally:
      measuring.end(process)
  if len(changes(points, warm_up)) < 2:
    raise RuntimeError("There are too few reports; raise --seconds.")
  return points


def changes(points: list[Point], warm_up: float) -> list[Point]:
  """Returns the points after the warm-up at which the steps had changed."""
  return [
    point
    for previous, point in zip(points, points[1:], strict=False)
    if point.steps != previous.steps and point.seconds >= warm_up
  ]
