"""Makes one page about runs: the papers' figures, statistics and raw data.

  python -m programs.report runs/study --output=report

Takes work directories of programs.train, directories with such below them, and
the data/ of earlier reports, and writes index.html, which needs no network and
no other file, the figures as PNG files, and data/, of which the same page can
be made again. Runs are told apart by their config.json: what differs from the
settings that most runs of an agent on a task have is a perturbation.
"""

import os
import pathlib
import sys

from programs import commands
from programs.run import machine
from programs.run.machine import UserError


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    UserError: if there are no runs, or the report cannot be written.
  """
  parser = commands.Parser("programs.report", __doc__)
  parser.add_argument(
    "directories", type=pathlib.Path, nargs="+", metavar="RUNS",
    help="where the runs are"
  )
  parser.add_argument(
    "--output", type=machine.path, required=True, help="directory to write to"
  )
  parser.add_argument(
    "--baseline",
    help="agent that others are compared with; unless set impala, or the first"
    " agent if no run is of that",
  )
  parser.add_argument(
    "--title", default="",
    help="of the page; its agents and tasks if it is left out",
  )
  options = parser.parse_args(argv)

  from acme_stac.evaluation import report, runs
  from acme_stac.evaluation.text import counted, printable

  machine.make_directory(options.output, "--output")
  if os.path.lexists(options.output / "data"):
    machine.make_directory(options.output / "data", "--output")
  machine.check_files(
    [
      options.output / "index.html",
      *options.output.glob("*.png"),
      *options.output.glob("data/*.*"),
    ],
    "--output",
  )
  try:
    found = runs.find(options.directories)
    print(counted(len(found.runs), "run"), flush=True)
    for problem in found.problems:
      print(f"  Left out: {problem}", file=sys.stderr, flush=True)
    files = report.write(
      found, options.output, options.baseline, options.title,
      lambda text: print(f"  {printable(text)}", flush=True),
    )
  except (ValueError, OSError) as error:
    raise UserError(printable(error)) from error
  print(printable(files[0]))
  return 0


if __name__ == "__main__":
  commands.run(main, sys.argv[1:])
