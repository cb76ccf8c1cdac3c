"""Measures the cost of the parts of a run.

  python -m programs.benchmark learner --networks mlp --output=learner.json
  python -m programs.benchmark actor
  python -m programs.benchmark pipeline
  python -m programs.benchmark peers --rllib=rllib/bin/python
  python -m programs.benchmark device --output=device.json
  python -m programs.benchmark on_device --agents impala --seeds 1 8
  python -m programs.benchmark environments
  python -m programs.benchmark soak --workdir=runs/soak --minutes=60

learner times every agent's update, actor a step outside the learner, pipeline
the whole program, peers other libraries beside it, device one host with its
accelerator in under four minutes, on_device training that is one compiled
program, and environments every environment of the papers. soak kills and
freezes processes of a run for an hour. docs/performance.md has results.
"""

import argparse
import importlib
import pathlib

from acme_stac import checks
from programs import commands
from programs.benchmark import measuring
from programs.run import arguments
from programs.run.errors import UserError

# Each is a module with `add_arguments`, `run` and `table`.
BENCHMARKS = (
  "learner", "actor", "pipeline", "peers", "device", "on_device",
  "environments", "soak",
)
# Those with `plot` too.
_DRAWN = ("peers", "soak")


class _Help(
  argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter
):
  """Shows the description as it is, and the defaults."""


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code, 1 if a row has an error."""
  parser = arguments.Parser("programs.benchmark", __doc__)
  parser.add_argument("benchmark", metavar="|".join(BENCHMARKS))
  name = parser.parse_args(argv[:1]).benchmark
  if name not in BENCHMARKS:
    parser.error(checks.unknown("benchmark", name, BENCHMARKS))
  # Only the chosen one: the learner's needs neither Reverb nor Launchpad.
  module = importlib.import_module(f"programs.benchmark.{name}")

  example = f"  python -m programs.benchmark {name} --output={name}.json"
  command = arguments.Parser(
    f"programs.benchmark {name}", f"{module.__doc__}\n{example}\n"
  )
  command.formatter_class = _Help
  module.add_arguments(command)
  command.add_argument(
    "--output", type=pathlib.Path, help="JSON file for the figures"
  )
  if name in _DRAWN:
    command.add_argument(
      "--plot", type=pathlib.Path, metavar="FILE.png", help="draw them"
    )
  options = command.parse_args(argv[1:])
  _check(command, options)

  description = measuring.machine()
  try:
    result = {**description, **module.run(options)}
  except (ValueError, UserError) as error:
    command.error(str(error))
  print(module.table(result))
  if options.output:
    options.output.write_text(measuring.to_json(result))
  if name in _DRAWN and options.plot:
    module.plot(result).savefig(options.plot, dpi=120)
  return 1 if any("error" in row for row in result["rows"]) else 0


def _check(command: arguments.Parser, options: argparse.Namespace):
  """Raises UserError for numbers and files that cannot be used."""
  for flag, value in vars(options).items():
    for number in value if isinstance(value, list) else [value]:
      is_number = isinstance(number, int | float) and flag != "seed"
      if is_number and number is not False and not number > 0:
        command.error(f"--{flag} must be positive, got {number}")
    if flag in ("output", "plot") and value:
      try:
        open(value, "a").close()
      except OSError as error:
        command.error(f"--{flag} cannot be written: {error}")


if __name__ == "__main__":
  commands.run(main)
