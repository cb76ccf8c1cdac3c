"""The same network and cores under this project and its peers.

Contenders take turns, so that whatever else the machine does meets all of them.
Each may use all cores and has its own best batched settings, and updates of 640
time steps: CartPole with an MLP of (256, 256), or Pong with IMPALA's shallow
torso, and a policy and a value on top. Steps/s (frames/s in Pong) are counted
after a warm-up; returns are those of training, the mean of the last 100
episodes or what the library reports, with each library's own step size and loss
weights.

dm-acme runs on this project's packages. The others are not installed with it;
give each the Python of an environment of its own (Python 3.10):

  python3.10 -m venv sf
  sf/bin/pip install "sample-factory==2.1.1" "envpool==0.8.4" "shimmy==1.3.0"
  python3.10 -m venv rllib && rllib/bin/pip install "ray[rllib]==2.60.0" torch
"""

import argparse
import sys
from typing import Any

from programs.benchmark.peers import contenders, race
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
  curves: dict[str, list[list[race.Point]]] = {name: [] for name in names}
  errors: dict[str, str] = {}
  for turn in range(options.rounds):
    for name in names:
      print(f"round {turn + 1} of {options.rounds}: {name}", file=sys.stderr)
      try:
        curves[name].append(
          race.run(known[name], options.warm_up, options.seconds)
        )
      except RuntimeError as error:
        errors[name] = str(error)
  return {"rows": compare(curves, errors, options.warm_up), "curves": curves}
