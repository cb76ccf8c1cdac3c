"""Sample Factory's APPO, for the comparison with peers; needs sample-factory.

Environments step together, as in its own `envpool` examples: one process
returns a batch. Pong is that of those examples and needs envpool; its steps are
frames. Appends lines {"steps": ..., "return": ...} to a file. Imports nothing
of this project.
"""

import argparse
import json
import pathlib
import sys
import time

import gymnasium
import numpy as np
from sample_factory.algo.runners.runner import AlgoObserver
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import make_runner


class BatchedCartPole(gymnasium.Env):
  """Gymnasium's vectorised CartPole with the interface of a batched agent."""

  def __init__(self, num_agents: int):
    from gymnasium.envs.classic_control import cartpole

    self._environment = cartpole.CartPoleVectorEnv(num_agents)
    self.observation_space = self._environment.single_observation_space
    self.action_space = self._environment.single_action_space
    self.num_agents = num_agents
    self.is_multiagent = True

  def reset(self, *, seed=None, options=None):
    """Resets all environments."""
    observation, _ = self._environment.reset(seed=seed)
    return observation, {}

  def step(self, action):
    """Steps all environments; those that have ended are reset."""
    action = np.asarray(action).reshape(self.num_agents)
    observation, reward, terminated, truncated, _ = self._environment.step(
      action
    )
    return (
      observation, np.asarray(reward, np.float32), terminated, truncated, {}
    )


def make_cartpole(name, config, env_config, render_mode=None):
  """Returns CartPole, or a batch of it for batched sampling."""
  if config.batched_sampling:
    return BatchedCartPole(config.env_agents)
  return gymnasium.make(name)


class Observer(AlgoObserver):
  """Writes steps and the mean return of the last episodes every second."""

  def __init__(self, path):
    self._path = path
    self._last = 0.0

  def on_training_step(self, runner, training_iteration_since_resume):
    """Writes a line unless one was written within the last second."""
    if time.monotonic() - self._last < 1.0:
      return
    self._last = time.monotonic()
    returns = runner.policy_avg_stats.get("reward", [[]])[0]
    with open(self._path, "a") as file:
      file.write(json.dumps({
        "steps": int(sum(runner.env_steps.values())),
        "return": float(np.mean(returns)) if len(returns) else None,
      }) + "\n")


def main():
  """Runs until killed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--log", type=pathlib.Path, required=True)
  parser.add_argument(
    "--case", choices=["cartpole", "pong_shallow"], default="cartpole"
  )
  parser.add_argument("--workers", type=int, default=1)
  parser.add_argument("--environments", type=int, default=32)
  parser.add_argument("--batched", type=int, default=1)
  options = parser.parse_args()
  arguments = [
    "--algo=APPO", "--device=cpu", "--use_rnn=False",
    "--rollout=20", "--recurrence=1", "--batch_size=640",
    "--num_batches_per_epoch=1", "--num_epochs=1", "--with_vtrace=False",
    "--normalize_input=False", "--nonlinearity=relu",
    "--train_for_env_steps=1000000000", f"--train_dir={options.log.parent}",
    "--experiment=run", f"--num_workers={options.workers}",
  ]
  if options.case == "cartpole":
    register_env("CartPole-v1", make_cartpole)
    arguments += [
      "--env=CartPole-v1", "--encoder_mlp_layers", "256", "256",
      "--reward_scale=0.1",
    ]
  else:
    from sf_examples.envpool.atari import envpool_atari_utils

    register_env("atari_pong", envpool_atari_utils.make_atari_env)
    arguments += [
      "--env=atari_pong", "--encoder_conv_architecture=convnet_impala",
      "--encoder_conv_mlp_layers", "256", "--obs_scale=255",
      "--env_frameskip=4", "--summaries_use_frameskip=True",
    ]
  if options.batched:
    arguments += [
      "--batched_sampling=True", "--num_envs_per_worker=1",
      "--worker_num_splits=1", f"--env_agents={options.environments}",
    ]
  else:
    arguments += [f"--num_envs_per_worker={options.environments}"]
  parser, _ = parse_sf_args(argv=arguments)
  parser.add_argument("--env_agents", type=int, default=1)
  config, runner = make_runner(parse_full_cfg(parser, arguments))
  runner.register_observer(Observer(options.log))
  runner.init()
  runner.run()


if __name__ == "__main__":
  sys.exit(main())
