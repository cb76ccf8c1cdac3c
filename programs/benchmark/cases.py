"""The runs that benchmarks measure, as configuration files."""

import argparse
import importlib

import ml_collections

# Name -> configuration file, its argument and what is changed.
CASES: dict[str, tuple[str, str, dict[str, object]]] = {
  "cartpole": (
    "small", "gymnasium:CartPole-v1", {"environments_per_actor": 32}
  ),
  "cheetah": ("control", "cheetah/run", {}),
  "pong_shallow": ("atari", "pong", {"stac.torso": "shallow"}),
  "pong_deep": ("atari", "pong", {}),
  "swingup_pixels": ("small", "control_pixels:cartpole/swingup", {}),
}


def add_arguments(parser: argparse.ArgumentParser):
  """Defines --cases."""
  parser.add_argument(
    "--cases", nargs="+", default=list(CASES), choices=list(CASES),
    help="cartpole: configs/small.py with 32 environments per actor; cheetah:"
    " configs/control.py, features; pong_shallow and pong_deep:"
    " configs/atari.py with either torso; swingup_pixels: configs/small.py,"
    " control from pixels",
  )


def make_config(case: str, agent: str) -> ml_collections.ConfigDict:
  """Returns the configuration of a case, without evaluation."""
  file, argument, changes = CASES[case]
  config = importlib.import_module(f"configs.{file}").get_config(argument)
  config.update_from_flattened_dict(
    {**changes, "agent": agent, "evaluation.episodes": 0}
  )
  return config


def flags(case: str, agent: str) -> list[str]:
  """Returns the flags of programs.train that make the same run."""
  file, argument, changes = CASES[case]
  return [
    f"--config=configs/{file}.py:{argument}",
    f"--config.agent={agent}",
    "--config.evaluation.episodes=0",
    *[f"--config.{name}={value}" for name, value in changes.items()],
  ]
