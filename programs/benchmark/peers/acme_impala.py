"""dm-acme 0.4.0's own IMPALA, for the comparison with peers.

Its network, its agent and its layouts, with an actor function that is compiled.
Appends lines {"steps": ..., "return": ...} to a file.
"""

import argparse
import dataclasses
import functools
import json
import pathlib

from acme_stac.agent import compat

compat.apply()

import acme  # noqa: E402
import haiku as hk  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import reverb  # noqa: E402
from acme import specs  # noqa: E402
from acme.agents.jax import impala  # noqa: E402
from acme.agents.jax.impala import builder as impala_builder  # noqa: E402
from acme.agents.jax.impala import networks as impala_networks  # noqa: E402
from acme.jax.layouts import distributed_layout  # noqa: E402
from acme.utils.loggers import base as loggers  # noqa: E402

from acme_stac import environments  # noqa: E402
from acme_stac.networks import torsos  # noqa: E402

ENVIRONMENTS = {"cartpole": "gymnasium:CartPole-v1", "pong": "atari:pong"}


class Network(hk.RNNCore):
  """The network of the comparison in the form of Acme's IMPALA."""

  def __init__(self, task: str, num_actions: int):
    super().__init__(name="network")
    self._torso = (
      torsos.MLPTorso((256, 256))
      if task == "cartpole"
      else torsos.ShallowTorso()
    )
    self._policy = hk.Linear(num_actions)
    self._value = hk.Linear(1)

  def unroll(self, inputs, state):
    """Returns logits and values of rows [T, ...]."""
    features = self._torso(inputs)
    return (self._policy(features), self._value(features)[..., 0]), state

  def __call__(self, inputs, state):
    """Returns logits and value of one row."""
    (logits, value), state = self.unroll(inputs[None], state)
    return (logits[0], value[0]), state

  def initial_state(self, batch_size):
    """Returns a state of which nothing is made; the agent wants one."""
    shape = [1] if batch_size is None else [batch_size, 1]
    return hk.LSTMState(jnp.zeros(shape), jnp.zeros(shape))


def make_networks(task: str, spec: specs.EnvironmentSpec):
  """Returns the networks in Acme's form."""

  def network():
    return Network(task, spec.actions.num_values)

  return impala_networks.make_haiku_networks(
    env_spec=spec,
    forward_fn=lambda inputs, state: network()(inputs, state),
    initial_state_fn=lambda batch_size=None: network().initial_state(
      batch_size
    ),
    unroll_fn=lambda inputs, state: network().unroll(inputs, state),
  )


class EpisodeLog(loggers.Logger):
  """Appends what an environment loop logs of an episode."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._steps = 0

  def write(self, data):
    """Adds an episode."""
    self._steps += int(data["episode_length"])
    with open(self._path, "a") as file:
      file.write(json.dumps({
        "steps": self._steps, "return": float(data["episode_return"])
      }) + "\n")

  def close(self):
    """Does nothing."""


def make_config(task: str) -> impala.IMPALAConfig:
  """Returns the batch of the comparison; the rest is Acme's."""
  return impala.IMPALAConfig(
    batch_size=32,
    # Time steps, the last one only bootstraps.
    sequence_length=21,
    sequence_period=20,
    max_abs_reward=1.0 if task == "pong" else float("inf"),
  )


def make_environment(task: str, seed: int):
  """Returns the environment of the comparison."""
  return environments.make(ENVIRONMENTS[task], seed=int(seed) % 2**31)


def run_local(task: str, log: pathlib.Path):
  """Runs the agent whose actor and learner take turns in this thread."""
  environment = make_environment(task, 0)
  spec = specs.make_environment_spec(environment)
  networks = make_networks(task, spec)
  agent = impala.IMPALAFromConfig(
    environment_spec=spec,
    forward_fn=networks.forward_fn,
    unroll_init_fn=networks.unroll_init_fn,
    unroll_fn=networks.unroll_fn,
    initial_state_init_fn=networks.initial_state_init_fn,
    initial_state_fn=networks.initial_state_fn,
    config=make_config(task),
    logger=loggers.NoOpLogger(),
  )
  acme.EnvironmentLoop(environment, agent, logger=EpisodeLog(log)).run()


def make_log(log: pathlib.Path, actor: int) -> EpisodeLog:
  """Returns the log of an actor."""
  return EpisodeLog(log.with_suffix(f".{actor}"))


def run_distributed(task: str, log: pathlib.Path, num_actors: int):
  """Runs Acme's distributed layout as processes."""
  import launchpad as lp

  spec = specs.make_environment_spec(make_environment(task, 0))
  builder = impala_builder.IMPALABuilder(
    make_config(task),
    core_state_spec=hk.LSTMState(jnp.zeros([1]), jnp.zeros([1])),
    logger_fn=loggers.NoOpLogger,
  )
  program = distributed_layout.DistributedLayout(
    seed=0,
    environment_factory=functools.partial(make_environment, task),
    network_factory=functools.partial(make_networks, task),
    builder=builder,
    policy_network=compiled,
    num_actors=num_actors,
    environment_spec=spec,
    actor_logger_fn=functools.partial(make_log, log),
  ).build()
  lp.launch(
    program,
    lp.LaunchType.LOCAL_MULTI_PROCESSING,
    terminal="output_to_files",
  ).wait()


def compiled(networks):
  """Returns networks whose acting is compiled."""
  return dataclasses.replace(
    networks, forward_fn=jax.jit(networks.forward_fn, backend="cpu")
  )


def drop_timeout():
  """Takes from Reverb's client an argument that it no longer has."""
  make_writer = reverb.Client.trajectory_writer

  def trajectory_writer(self, *args, get_signature_timeout_ms=None, **kwargs):
    del get_signature_timeout_ms
    return make_writer(self, *args, **kwargs)

  reverb.Client.trajectory_writer = trajectory_writer


drop_timeout()


def main():
  """Runs until killed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--task", choices=list(ENVIRONMENTS), required=True)
  parser.add_argument("--log", type=pathlib.Path, required=True)
  parser.add_argument(
    "--num_actors", type=int, default=0, help="0: one process"
  )
  options = parser.parse_args()
  if options.num_actors:
    run_distributed(options.task, options.log, options.num_actors)
  else:
    run_local(options.task, options.log)


if __name__ == "__main__":
  main()
