"""Launches a run on a cluster.

  python -m xm_launch --config=xm_launch/pong.yaml --engine=kubernetes --dry_run

Without --dry_run the manifests go to kubectl, or the job to Vertex AI. See
docs/cloud.md.
"""

import os

from programs import commands, train
from programs.run import arguments
from programs.run.errors import UserError
from xm_launch import description, kubernetes, reading, vertex


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = arguments.Parser("xm_launch", __doc__)
  parser.add_argument(
    "--config", required=True, help="description of the run, a YAML file"
  )
  parser.add_argument(
    "--engine", choices=["kubernetes", "vertex"], default="kubernetes",
    help="where to launch",
  )
  parser.add_argument(
    "--dry_run", action="store_true", help="print what would be submitted"
  )
  parser.add_argument(
    "--nocheck", action="store_true",
    help="skip the check of the arguments of programs.train, which takes some"
    " seconds and needs the environment that 'make setup' makes",
  )
  options = parser.parse_args(argv)
  run = reading.load(options.config)
  # Errors in the description itself are reported before the slow check.
  if options.engine == "kubernetes":
    manifests = kubernetes.manifests(run)
  else:
    vertex.job(run)
  if not options.nocheck:
    _check_training(run)
  if options.engine == "vertex":
    return vertex.submit(run, options.dry_run)
  if options.dry_run:
    print(kubernetes.to_yaml(manifests), end="")
    return 0
  return kubernetes.apply(run, manifests)


def _check_training(run: description.Run):
  """Raises UserError for arguments that programs.train does not take."""
  # This machine's accelerator is not needed, and may be in use.
  os.environ["JAX_PLATFORMS"] = "cpu"
  try:
    train.check([
      argument
      for argument in run.arguments("unused")
      if not argument.startswith("--launch=")
    ])
  except UserError as error:
    raise UserError(f"train: {error}") from error


if __name__ == "__main__":
  commands.run(main)
