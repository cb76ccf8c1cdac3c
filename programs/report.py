"""Makes one page about runs: the papers' figures, statistics and raw data.

  python -m programs.report runs/study --output=report

Takes work directories of programs.train, directories that contain some, and the
data/ of earlier reports. Writes index.html, which needs no network and no other
file, the figures as PNG files, and data/, from which the same page can be made
again. A run whose settings in config.json differ from those of most runs of its
agent on its task counts as a perturbation.
"""

import os
import sys

from acme_stac import evaluation
from acme_stac.evaluation.text import counted, printable
from programs import commands
from programs.run import arguments, paths
from programs.run.errors import UserError


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    UserError: if there are no runs, or the report cannot be written.
  """
  parser = arguments.Parser("programs.report", __doc__)
  parser.add_argument(
    "directories", type=paths.path, nargs="+", metavar="RUNS",
    help="directories of the runs"
  )
  parser.add_argument(
    "--output", type=paths.path, required=True, help="directory to write to"
  )
  parser.add_argument(
    "--baseline",
    help="agent that others are compared with; impala unless set, or the first"
    " agent if there is no run of impala",
  )
  parser.add_argument(
    "--title", default="",
    help="title of the page; its agents and tasks unless set",
  )
  options = parser.parse_args(argv)
  output = options.output
  paths.make_directory(output, "--output")
  if os.path.lexists(output / "data"):
    paths.make_directory(output / "data", "--output")
  paths.check_files(
    [output / "index.html", *output.glob("*.png"), *output.glob("data/*.*")],
    "--output",
  )
  try:
    found = evaluation.runs.find(options.directories)
    print(counted(len(found.runs), "run"), flush=True)
    for problem in found.problems:
      print(f"  Left out: {problem}", file=sys.stderr, flush=True)
    files = evaluation.report.write(
      found, output, options.baseline, options.title,
      lambda text: print(f"  {printable(text)}", flush=True),
    )
  except (ValueError, OSError) as error:
    raise UserError(printable(error)) from error
  print(printable(files[0]))
  return 0


if __name__ == "__main__":
  commands.run(main)
