"""Writes a trained policy to one plain file.

  python -m programs.export --workdir=runs/cartpole --output=policy.npz

acme_stac.load_policy("policy.npz") acts by it, without Launchpad, Reverb and
TensorFlow.
"""

import argparse
import pathlib
import sys

import acme_stac
from acme_stac.evaluation.text import printable
from programs import machine
from programs.machine import UserError


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    UserError: if there is nothing to export, or the file cannot be written.
  """
  parser = argparse.ArgumentParser(
    "programs.export", description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--workdir", type=pathlib.Path, required=True,
    help="a run's, whose newest checkpoint is taken, or one checkpoint",
  )
  parser.add_argument("--output", type=pathlib.Path, required=True)
  options = parser.parse_args(argv)
  machine.check_files([options.output], "--output")
  try:
    metadata = acme_stac.export_policy(options.workdir, options.output)
  except (ValueError, OSError) as error:
    raise UserError(str(error)) from error
  steps = metadata.get("environment_steps", 0)
  print(
    f"{printable(options.output)}: {metadata.get('agent')} on"
    f" {metadata.get('environment')} after {steps:,} environment steps"
  )
  return 0


if __name__ == "__main__":
  try:
    sys.exit(main(sys.argv[1:]))
  except UserError as error:
    sys.exit(machine.report_error(error))
