"""Measures what the parts of a run cost.

  python -m programs.benchmark learner --networks mlp --output=learner.json
  python -m programs.benchmark actor
  python -m programs.benchmark pipeline
  python -m programs.benchmark peers --rllib=rllib/bin/python
  python -m programs.benchmark device --output=device.json
  python -m programs.benchmark environments
  python -m programs.benchmark soak --workdir=runs/soak --minutes=60

learner times every agent's update, actor what a step costs outside the learner,
pipeline the whole program, and peers other libraries' programs beside it.
device measures one host with its accelerator, all in under four minutes.
environments steps every environment of the papers; soak kills and freezes
processes of a run for an hour. docs/performance.md has results.
"""

import argparse
import importlib
import json
import signal
import sys

from acme_stac import checks
from programs import commands
from programs.benchmark import measuring
from programs.run import arguments
from programs.run.errors import UserError

# Name -> whether it draws its figures. Each is a module with `add_arguments`,
# `run`, `table` and, if it draws, `plot`.
BENCHMARKS = {
  "learner": True,
  "actor": False,
  "pipeline": True,
  "peers": True,
  "device": False,
  "environments": False,
  "soak": True,
}


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
  # Only the one that runs: the learner's needs neither Reverb nor Launchpad.
  module = importlib.import_module(f"programs.benchmark.{name}")

  example = f"  python -m programs.benchmark {name} --output={name}.json"
  command = arguments.Parser(
    f"programs.benchmark {name}", f"{module.__doc__}\n{example}\n"
  )
  command.formatter_class = _Help
  module.add_arguments(command)
  command.add_argument("--output", help="JSON file for the figures")
  if BENCHMARKS[name]:
    command.add_argument("--plot", metavar="FILE.png", help="draw them")
  options = command.parse_args(argv[1:])
  plot = options.plot if BENCHMARKS[name] else None
  _check(command, options, plot)

  description = measuring.machine()
  # The programs that a benchmark has started end with it.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    result = {**description, **module.run(options)}
  except (ValueError, UserError) as error:
    command.error(str(error))
  print(module.table(result))
  if options.output:
    with open(options.output, "w") as file:
      json.dump(result, file, indent=2)
  if plot:
    module.plot(result).savefig(plot, dpi=120)
  return 1 if any("error" in row for row in result["rows"]) else 0


def _check(
  command: arguments.Parser, options: argparse.Namespace, plot: str | None
):
  """Raises UserError for numbers and files that cannot be used."""
  for flag, value in vars(options).items():
    for number in value if isinstance(value, list) else [value]:
      is_number = isinstance(number, int | float) and flag != "seed"
      if is_number and number is not False and number <= 0:
        command.error(f"--{flag} must be positive, got {number}")
  if plot and not plot.endswith(".png"):
    command.error(f"--plot must end in .png, got {plot}")
  for name, path in {"output": options.output, "plot": plot}.items():
    if path:
      try:
        open(path, "a").close()
      except OSError as error:
        command.error(f"--{name} cannot be written: {error}")


if __name__ == "__main__":
  commands.run(main)
