"""RLlib's IMPALA, for the comparison with peers; needs `ray[rllib]` and torch.

Appends lines {"steps": ..., "return": ...} to a file. Imports nothing of this
project.
"""

import argparse
import json
import math
import warnings

import ray
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig


def make_config():
  """Returns the algorithm's configuration."""
  return (
    IMPALAConfig()
    .environment("CartPole-v1")
    .env_runners(
      num_env_runners=1,
      num_envs_per_env_runner=32,
      rollout_fragment_length=20,
      # The same vectorised environment that the others step.
      gym_env_vectorize_mode="vector_entry_point",
    )
    .learners(num_learners=0)
    .training(train_batch_size_per_learner=640)
    .rl_module(
      model_config=DefaultModelConfig(
        fcnet_hiddens=[256, 256], fcnet_activation="relu",
        vf_share_layers=True,
      )
    )
    .reporting(min_time_s_per_iteration=1)
  )


def main():
  """Runs until killed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--log", required=True)
  options = parser.parse_args()
  warnings.simplefilter("ignore")
  ray.init(num_cpus=4, include_dashboard=False)
  algorithm = make_config().build_algo()
  while True:
    runners = algorithm.train()["env_runners"]
    steps = runners.get("num_env_steps_sampled_lifetime")
    if steps is None:
      continue  # The first results lack it.
    mean = runners.get("episode_return_mean", math.nan)
    with open(options.log, "a") as file:
      file.write(json.dumps({
        "steps": int(steps),
        "return": None if math.isnan(mean) else float(mean),
      }) + "\n")


if __name__ == "__main__":
  main()
