"""Other libraries beside this project, with the same network and cores.

Contenders take turns, so that other load on the machine meets all of them. Each
may use all cores, has its own best batched settings, and learns from updates of
640 time steps: CartPole with an MLP of (256, 256), or Pong with IMPALA's
shallow torso, followed by a linear policy and value. Steps/s (in Pong: frames)
are counted after a warm-up. Returns are those of training with each library's
own step size and loss weights: the mean of the last 100 episodes, or what the
library reports.

dm-acme runs with this project's packages. Give each of the others the Python of
an environment of its own (Python 3.10):

  python3.10 -m venv sf
  sf/bin/pip install "sample-factory==2.1.1" "envpool==0.8.4" "shimmy==1.3.0"
  python3.10 -m venv rllib && rllib/bin/pip install "ray[rllib]==2.60.0" torch
"""

import argparse
import sys
from typing import Any

from programs.benchmark.peers import contenders
from programs.benchmark.peers.comparison import compare, plot, table


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--case", default="cartpole", choices=list(contenders.PEERS),
    help="what is learned; RLlib takes part in cartpole",
  )
  parser.add_argument(
    "--sample_factory", metavar="PYTHON", help="its environment's interpreter"
  )
  parser.add_argument(
    "--rllib", metavar="PYTHON", help="its environment's interpreter"
  )
  parser.add_argument(
    "--contenders", nargs="+", metavar="NAME",
    help="all by default; of"
    f" {[*contenders.OURS, *contenders.PEERS['cartpole']]}",
  )
  parser.add_argument("--rounds", type=int, default=3, help="of all contenders")
  parser.add_argument(
    "--warm_up", type=float, default=15.0, help="seconds not counted"
  )
  parser.add_argument(
    "--seconds", type=float, default=45.0, help="of each measurement"
  )


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Returns a row for each contender, and their progress in every round."""
  known = contenders.make(options.case, options.sample_factory, options.rllib)
  names = options.contenders or list(known)
  for name in names:
    if name not in known:
      raise ValueError(
        f"There is no contender {name!r} of {options.case} among"
        f" {list(known)}; sample_factory and rllib need --sample_factory and"
        " --rllib."
      )
  curves: dict[str, list[list[contenders.Point]]] = {name: [] for name in names}
  errors: dict[str, str] = {}
  for turn in range(options.rounds):
    for name in names:
      print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr)
      try:
        curves[name].append(
          contenders.run(known[name], options.warm_up, options.seconds)
        )
      except RuntimeError as error:
        errors[name] = str(error)
  return {"rows": compare(curves, errors, options.warm_up), "curves": curves}
