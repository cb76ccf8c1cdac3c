"""Measures one host with its accelerator in under four minutes.

pooling: the deep torso's max pooling, differentiated in two ways.
learner: updates of both torsos with IMPALA and STACX, in either precision.
emulator: Pong alone, with random actions, on all cores.
colocated: `programs.train --launch=colocated` with Pong: the time from the
command to the first update, and the rate after it.

Needs neither Acme, Launchpad, Reverb nor TensorFlow. Each row is printed as
soon as it is measured; rows for which no time is left are skipped.
"""

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

from acme_stac import accelerator
from programs.benchmark import measuring, parts
from programs.benchmark.parts import PARTS, Options, Row

# Time for the start of JAX and CUDA and for the matrix products.
_DEVICE_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--only", type=lambda text: text.split(","), metavar="PART,PART",
    default=list(PARTS), help=f"parts to measure, of {', '.join(PARTS)}",
  )
  parser.add_argument(
    "--seconds_per_row", type=float, default=5.0,
    help="length of a program's measurement; other rows take a fraction of it",
  )
  parser.add_argument(
    "--budget", type=float, default=225.0, help="seconds for all parts together"
  )
  parser.add_argument(
    "--start_seconds", type=float, default=60.0,
    help="maximum time until a program's first update",
  )
  parser.add_argument(
    "--num_actors", type=int, default=2, help="actors of a colocated program"
  )
  parser.add_argument(
    "--environments_per_actor", type=int, default=64,
    help="environments of each of these actors",
  )
  parser.add_argument(
    "--tiny", action="store_true",
    help="small sizes, float32 only; always set on a CPU",
  )


def run(options: Options) -> dict[str, Any]:
  """Measures the parts, each in a process of its own.

  Returns:
    The device, the rows with the names of their parts, and the skipped cases.
  """
  unknown = sorted(set(options.only) - set(PARTS))
  if unknown:
    raise ValueError(f"--only has {unknown}, but the parts are {list(PARTS)}.")
  started = time.monotonic()
  try:
    advice = accelerator.check_apart()
  except accelerator.AcceleratorError as error:
    raise ValueError(str(error)) from error
  if advice:
    print(f"Warning: {advice}", flush=True)
  device = next(
    _apart("device", [{}], options, started + _DEVICE_SECONDS), None
  )
  if device is None:
    raise ValueError(
      f"JAX has not used its device within {_DEVICE_SECONDS:.0f} s, or has"
      " failed: see above."
    )
  for name, value in device.items():
    print(f"{name}: {value}", flush=True)
  options.tiny = options.tiny or device["platform"] == "cpu"
  rows: list[Row] = []
  skipped: list[Row] = []
  for name in options.only:
    part = PARTS[name]
    left = started + options.budget - time.monotonic()
    deadline = time.monotonic() + part.share * left
    cases = part.cases(options)
    # Programs are processes of their own anyway.
    measured = (
      part.measure(cases, options, deadline)
      if name == "colocated" else _apart(name, cases, options, deadline)
    )
    done = []
    for row in measured:
      done.append({"part": name, **row})
      cells = measuring.cells(row, part.columns)
      print(f"{name}: {', '.join(cells)}", flush=True)
    rows += done
    skipped += [
      {"part": name, **case}
      for case in cases
      if not any(case.items() <= row.items() for row in done)
    ]
  _compare(rows)
  return {
    "device": device,
    "seconds": time.monotonic() - started,
    "rows": rows,
    "skipped": skipped,
  }


def _apart(
  name: str, cases: list[Row], options: Options, deadline: float
) -> Iterator[Row]:
  """Yields the rows of a part from a process that ends by the deadline.

  When the process ends, it frees the device's memory for the next part.
  """
  context = multiprocessing.get_context("spawn")
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(
    target=_send, args=(sender, name, cases, options, deadline), daemon=True
  )
  process.start()
  sender.close()
  try:
    while receiver.poll(max(0.0, deadline - time.monotonic())):
      yield receiver.recv()
  except EOFError:
    # The process has ended, with all rows or with a traceback.
    process.join()
    if process.exitcode:
      print(
        f"{name}: ended with exit code {process.exitcode}, see above.",
        flush=True,
      )
  finally:
    process.kill()
    process.join()


def _send(
  sender: Any, name: str, cases: list[Row], options: Options, deadline: float
):
  measure = parts.describe if name == "device" else PARTS[name].measure
  for row in measure(cases, options, deadline):
    sender.send(row)


def _compare(rows: list[Row]):
  """Adds to each colocated row its rate relative to the limiting part.

  The limit is the lower of the emulator's and the learner's rates, each
  measured alone; None unless both were measured.
  """

  def rates(part: str, **of_row: Any) -> list[float]:
    wanted = {"part": part, **of_row}.items()
    return [
      row["frames_per_second"] for row in rows
      if wanted <= row.items() and "error" not in row
    ]

  for row in rows:
    if row["part"] == "colocated" and "error" not in row:
      same = {name: row[name] for name in ("torso", "agent", "dtype", "batch")}
      emulator, learner = rates("emulator"), rates("learner", **same)
      row["share_of_lesser"] = (
        row["frames_per_second"] / min(max(emulator), *learner)
        if emulator and learner else None
      )


def table(result: dict[str, Any]) -> str:
  """Returns Markdown: the device, a table for each part, the skipped cases."""
  lines = ["", ", ".join(f"{k}: {v}" for k, v in result["device"].items())]
  for name, part in PARTS.items():
    rows = [row for row in result["rows"] if row["part"] == name]
    if rows:
      lines += ["", measuring.table(rows, part.columns)]
  lines += ["", f"{result['seconds']:.0f} s in all."]
  if result["skipped"]:
    lines.append("Not measured, for want of time or after an error above:")
    lines += [" ".join(map(str, row.values())) for row in result["skipped"]]
  return "\n".join(lines)
