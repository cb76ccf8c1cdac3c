"""Launches a run on a cluster.

  python -m xm_launch --config=xm_launch/pong.yaml --engine=kubernetes --dry_run

Without --dry_run the manifests go to kubectl, or the job to Vertex AI. See
docs/cloud.md.
"""

import os
import subprocess
import sys

from programs.run.errors import UserError
from xm_launch import description, kubernetes, vertex


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  from absl import flags

  parsed = flags.FlagValues()
  flags.DEFINE_string(
    "config", None, "Description of the run, a YAML file.", flag_values=parsed
  )
  flags.DEFINE_enum(
    "engine",
    "kubernetes",
    ["kubernetes", "vertex"],
    "Where to launch.",
    flag_values=parsed,
  )
  flags.DEFINE_bool(
    "dry_run", False, "Print what would be submitted.", flag_values=parsed
  )
  flags.DEFINE_bool(
    "check",
    True,
    "First check the arguments of programs.train, which needs the environment"
    " that 'make setup' makes.",
    flag_values=parsed,
  )
  if {"--help", "-h"} & set(argv[1:]):
    print(__doc__)
    print(parsed.get_help())
    return 0
  try:
    rest = parsed(argv)
  except flags.Error as error:
    raise UserError(str(error)) from error
  if len(rest) > 1 or not parsed.config:
    raise UserError(
      "Usage: python -m xm_launch --config=FILE.yaml"
      " [--engine=kubernetes|vertex] [--dry_run]"
    )
  run = description.load(parsed.config)
  # What is wrong with the description itself is said before the slow check.
  if parsed.engine == "kubernetes":
    items = kubernetes.manifests(run)
  else:
    vertex.job(run)
  if parsed.check:
    _check_training(run)
  if parsed.engine == "vertex":
    return vertex.submit(run, parsed.dry_run)
  if parsed.dry_run:
    print(kubernetes.to_yaml(items), end="")
    return 0
  return kubernetes.apply(run, items)


def _check_training(run: description.Run):
  """Has programs.train check its arguments, and do nothing else.

  Raises:
    UserError: with what it said.
  """
  arguments = [
    argument
    for argument in run.arguments("unused")
    if not argument.startswith("--launch=")
  ]
  code = (
    "import sys; from programs import train\n"
    "from programs.run.errors import UserError\n"
    "try: train.check(sys.argv[1:])\n"
    "except UserError as error: sys.exit(f'{error}')"
  )
  result = subprocess.run(
    [sys.executable, "-c", code, *arguments],
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    text=True,
    cwd=vertex.ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  if result.returncode:
    lines = result.stderr.strip().splitlines()
    raise UserError("train: " + "\n".join(lines[-3:]))


if __name__ == "__main__":
  try:
    sys.exit(main(sys.argv))
  except UserError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
