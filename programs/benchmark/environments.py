"""Steps every environment of the papers, one and a batch at a time."""

import argparse
import sys
from typing import Any

import numpy as np

from acme_stac import environments
from acme_stac.environments.check import random_action
from programs.benchmark import measuring


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--names", nargs="+", metavar="NAME",
    help="environments; every game and task of the papers by default",
  )
  parser.add_argument("--batch", type=int, default=16, help="members")
  parser.add_argument(
    "--steps", type=int, default=100, help="steps of each, after a reset"
  )


def all_environments() -> list[str]:
  """Returns the names of every game and task of the papers' benchmarks."""
  from acme_stac.environments import control, rwrl
  from acme_stac.evaluation import scores

  tasks = ["/".join(task) for task in control.suite.ALL_TASKS]
  return [
    "catch",
    "gymnasium:CartPole-v1",
    *[f"atari:{game}" for game in scores.atari_57()],
    *[f"control:{task}" for task in tasks],
    *[f"control_pixels:{task}" for task in tasks],
    *[f"rwrl:{name}" for name in rwrl.all_levels()],
  ]


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Makes, checks and steps environments with random actions.

  Returns:
    A row for each name: steps (of the environment, so frames for Atari) per
    second, or what was wrong.
  """
  rows = []
  names = options.names or all_environments()
  for number, name in enumerate(names):
    print(f"{number + 1}/{len(names)} {name}", file=sys.stderr)
    try:
      row = {
        "environment": name,
        "one": _steps_per_second(name, 1, options.steps),
        "batch": _steps_per_second(name, options.batch, options.steps),
      }
    except Exception as error:  # It is one of many: say so and go on.
      row = {"environment": name, "error": f"{error}"}
    rows.append(row)
  return {"batch": options.batch, "steps": options.steps, "rows": rows}


def _steps_per_second(name: str, members: int, steps: int) -> float:
  environment = environments.make_batched(name, members, seed=0)
  try:
    if members == 1:
      environments.check(environment, max_seconds=0.1)
    spec = environment.action_spec()
    rng = np.random.default_rng(0)
    actions = [
      np.stack([random_action(spec, rng) for _ in range(members)])
      for _ in range(steps)
    ]
    environment.reset()
    steps_left = iter(actions)
    cost = measuring.cost_of(
      lambda: environment.step(next(steps_left)), steps
    )
    return members * environment.action_repeat / cost.seconds
  finally:
    environment.close()


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `run` gives."""
  return measuring.table(result["rows"], {
    "environment": lambda row: f"`{row['environment']}`",
    "one, steps/s": lambda row: f"{row['one']:,.0f}",
    f"{result['batch']}, steps/s": lambda row: f"{row['batch']:,.0f}",
  })
