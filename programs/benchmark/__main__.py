"""Measures what the parts of a run cost.

  python -m programs.benchmark learner --networks mlp --output=learner.json
  python -m programs.benchmark actor
  python -m programs.benchmark pipeline
  python -m programs.benchmark peers --rllib=rllib/bin/python
  python -m programs.benchmark environments

learner times every agent's update, actor what a step costs outside the learner,
pipeline the whole program, peers other libraries' programs beside it;
environments steps every environment of the papers and says which could not be
made. docs/performance.md has what they gave.
"""

import argparse
import importlib
import json
import signal
import sys

from acme_stac import checks
from programs import commands
from programs.run import arguments
from programs.run.errors import UserError

BENCHMARKS = ("learner", "actor", "pipeline", "peers", "environments")


class _Help(
  argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
):
  """Shows the description as it is, and the defaults."""


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = arguments.Parser("programs.benchmark", __doc__)
  parser.add_argument("benchmark", metavar="|".join(BENCHMARKS))
  name = parser.parse_args(argv[:1]).benchmark
  if name not in BENCHMARKS:
    parser.error(checks.unknown("benchmark", name, BENCHMARKS))
  # A benchmark loads only what it measures.
  module = importlib.import_module(f"programs.benchmark.{name}")

  example = f"  python -m programs.benchmark {name} --output={name}.json"
  command = arguments.Parser(
    f"programs.benchmark {name}", f"{module.__doc__}\n{example}\n"
  )
  command.formatter_class = _Help
  module.add_arguments(command)
  command.add_argument("--output", help="JSON file for the figures")
  if hasattr(module, "plot"):
    command.add_argument("--plot", metavar="FILE.png", help="draw them")
  options = command.parse_args(argv[1:])
  for flag, value in vars(options).items():
    for number in value if isinstance(value, list) else [value]:
      if isinstance(number, int | float) and number <= 0:
        command.error(f"--{flag} must be positive, got {number}")
  for name in ("output", "plot"):
    path = getattr(options, name, None)
    if path is None:
      continue
    if name == "plot" and not path.endswith(".png"):
      command.error(f"--plot must end in .png, got {path}")
    try:
      open(path, "a").close()
    except OSError as error:
      command.error(f"--{name} cannot be written: {error}")
  from programs.benchmark import measuring

  description = measuring.machine()
  # What a benchmark has started is ended with it.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    result = {**description, **module.run(options)}
  except (ValueError, UserError) as error:
    command.error(str(error))
  print(module.table(result))
  if options.output:
    with open(options.output, "w") as file:
      json.dump(result, file, indent=2)
  if getattr(options, "plot", None):
    module.plot(result).savefig(options.plot, dpi=120)
  return 1 if any("error" in row for row in result["rows"]) else 0


if __name__ == "__main__":
  commands.run(main)
