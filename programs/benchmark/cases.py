"""The runs that benchmarks measure, as flags of programs.train."""

import argparse

from programs.launch import flags as run_flags
from programs.run import experiment, validation

CASES = {
  "cartpole": [
    "--config=configs/small.py:gymnasium:CartPole-v1",
    "--config.environments_per_actor=32",
  ],
  "cheetah": ["--config=configs/control.py:cheetah/run"],
  "pong_shallow": [
    "--config=configs/atari.py:pong", "--config.stac.torso=shallow"
  ],
  "pong_deep": ["--config=configs/atari.py:pong"],
  "swingup_pixels": [
    "--config=configs/small.py:control_pixels:cartpole/swingup"
  ],
}


def add_arguments(parser: argparse.ArgumentParser):
  """Defines --cases."""
  parser.add_argument(
    "--cases", nargs="+", default=list(CASES), choices=list(CASES),
    help="the runs of these names in programs/benchmark/cases.py",
  )


def flags(case: str, agent: str) -> list[str]:
  """Returns the flags of programs.train for a case, without evaluation."""
  return [
    *CASES[case], f"--config.agent={agent}", "--config.evaluation.episodes=0"
  ]


def make_experiment(
  case: str, agent: str, *more: str
) -> experiment.Experiment:
  """Returns the run of a case with further flags, in this process."""
  parsed = run_flags.parse([
    *flags(case, agent), "--workdir=/nowhere", *more
  ])
  return validation.make_experiment(
    parsed.config, parsed.num_actors, parsed.workdir
  )
