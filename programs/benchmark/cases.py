"""The runs that benchmarks measure, as configuration files."""

import argparse
import importlib

import ml_collections

# Name -> configuration file, its argument and fields of the agent.
CASES: dict[str, tuple[str, str, dict[str, object]]] = {
  "cartpole": ("small", "gymnasium:CartPole-v1", {}),
  "cheetah": ("control", "cheetah/run", {}),
  "pong_shallow": ("atari", "pong", {"torso": "shallow"}),
  "pong_deep": ("atari", "pong", {}),
}


def add_arguments(parser: argparse.ArgumentParser):
  """Defines --cases."""
  parser.add_argument(
    "--cases", nargs="+", default=list(CASES), choices=list(CASES),
    help="cartpole: configs/small.py; cheetah: configs/control.py, features;"
    " pong_shallow and pong_deep: configs/atari.py with either torso",
  )


def make_config(case: str, agent: str) -> ml_collections.ConfigDict:
  """Returns the configuration of a case, without evaluation."""
  file, argument, fields = CASES[case]
  config = importlib.import_module(f"configs.{file}").get_config(argument)
  config.agent = agent
  config.stac.update(fields)
  config.evaluation.episodes = 0
  return config


def flags(case: str, agent: str) -> list[str]:
  """Returns the flags of programs.train that make the same run."""
  file, argument, fields = CASES[case]
  return [
    f"--config=configs/{file}.py:{argument}",
    f"--config.agent={agent}",
    "--config.evaluation.episodes=0",
    *[f"--config.stac.{name}={value}" for name, value in fields.items()],
  ]
