"""Writes a trained policy to one plain file.

  python -m programs.export runs/cartpole --output=policy.npz

acme_stac.load_policy("policy.npz") loads it without Launchpad, Reverb or
TensorFlow.
"""

import acme_stac
from acme_stac.evaluation.text import printable
from programs import commands
from programs.run import arguments, paths, workdir
from programs.run.errors import UserError


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    UserError: if there is nothing to export, or the file cannot be written.
  """
  parser = arguments.Parser("programs.export", __doc__)
  parser.add_argument(
    "run", type=paths.path, metavar="RUN",
    help="a run's work directory, of which the newest checkpoint is used, or a"
    " checkpoint",
  )
  parser.add_argument(
    "--output", type=paths.path, required=True, help="file to write"
  )
  options = parser.parse_args(argv)
  workdir.check_is_run(options.run)
  paths.check_files([options.output], "--output")
  try:
    metadata = acme_stac.export_policy(options.run, options.output)
  except ValueError as error:
    raise UserError(str(error)) from error
  except OSError as error:
    raise paths.cannot_be_written(options.output, error, "--output") from error
  steps = metadata.get("environment_steps", 0)
  print(
    f"{printable(options.output)}: {metadata.get('agent')} on"
    f" {metadata.get('environment')} after {steps:,} environment steps"
  )
  return 0


if __name__ == "__main__":
  commands.run(main)
