"""Steps per second of every environment of the papers, alone and in a batch."""

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
  parser.add_argument(
    "--batch", type=int, default=16, help="environments that step together"
  )
  parser.add_argument(
    "--steps", type=int, default=100, help="steps of each, after a reset"
  )


def all_environments() -> list[str]:
  """Returns the names of every game and task of the papers' benchmarks."""
  # Atari alone should not need DM control.
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
  """Checks environments, and steps them with random actions.

  Returns:
    A row for each name: environment steps (for Atari: frames) per second of one
    environment and of a batch, or the error.
  """
  rows: list[dict[str, Any]] = []
  names = options.names or all_environments()
  for number, name in enumerate(names, 1):
    print(f"{number}/{len(names)} {name}", file=sys.stderr)
    row: dict[str, Any] = {"environment": name}
    try:
      row["one"] = _steps_per_second(name, 1, options.steps)
      row["batch"] = _steps_per_second(name, options.batch, options.steps)
    except Exception as error:  # Any environment may fail; go on with others.
      row["error"] = f"{error}"
    rows.append(row)
  return {"batch": options.batch, "steps": options.steps, "rows": rows}


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of the result of `run`."""
  return measuring.table(result["rows"], {
    "environment": "`{environment}`",
    "one, steps/s": "{one:,.0f}",
    f"{result['batch']}, steps/s": "{batch:,.0f}",
  })


def random_actions(
  environment: environments.BatchedEnvironment, number: int
) -> list[np.ndarray]:
  """Returns random actions for all members, one for each of several steps."""
  rng = np.random.default_rng(0)
  spec = environment.action_spec()
  return [
    np.stack([
      random_action(spec, rng) for _ in range(environment.num_environments)
    ])
    for _ in range(number)
  ]


def _steps_per_second(name: str, members: int, steps: int) -> float:
  environment = environments.make_batched(name, members, seed=0)
  try:
    if members == 1:
      environments.check(environment, max_seconds=0.1)
    actions = iter(random_actions(environment, steps + 1))
    environment.reset()
    environment.step(next(actions))  # Those in JAX compile it.
    cost = measuring.cost_of(lambda: environment.step(next(actions)), steps)
    return members * environment.action_repeat / cost.seconds
  finally:
    environment.close()
