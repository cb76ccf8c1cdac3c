"""dm-acme 0.4.0's own IMPALA, for the comparison with peers.

Runs its agent of one process: its distributed layout does not start with this
JAX, as each process would need names that JAX has removed before it unpickles
its node. Appends lines {"steps": ..., "return": ...} to a file; Pong's steps
are frames.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from acme_stac.agent import compat

compat.apply()

import acme  # noqa: E402
import haiku as hk  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import reverb  # noqa: E402
from absl import flags  # noqa: E402
from acme import specs, wrappers  # noqa: E402
from acme.agents.jax import impala  # noqa: E402
from acme.agents.jax.impala import networks as impala_networks  # noqa: E402
from acme.utils.loggers import base as loggers  # noqa: E402

from acme_stac import environments  # noqa: E402
from acme_stac.networks import torsos  # noqa: E402

# Name -> environment, frames per step, and torso.
CASES: dict[str, tuple[str, int, Callable[[], Any]]] = {
  "cartpole": (
    "gymnasium:CartPole-v1", 1, lambda: torsos.MLPTorso((256, 256))
  ),
  "pong_shallow": ("atari:pong", 4, torsos.ShallowTorso),
}


class Network(hk.RNNCore):
  """The network of the comparison, as Acme's IMPALA expects it."""

  def __init__(self, num_actions: int, torso: Callable[[], Any]):
    super().__init__(name="network")
    self._torso = torso()
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
    """Returns a state that is not used; the agent needs one."""
    shape = [1] if batch_size is None else [batch_size, 1]
    return hk.LSTMState(jnp.zeros(shape), jnp.zeros(shape))


def make_networks(spec: specs.EnvironmentSpec, torso: Callable[[], Any]):
  """Returns the networks as Acme's IMPALA expects them."""

  def network():
    return Network(spec.actions.num_values, torso)

  return impala_networks.make_haiku_networks(
    env_spec=spec,
    forward_fn=lambda inputs, state: network()(inputs, state),
    initial_state_fn=lambda batch_size=None: network().initial_state(
      batch_size
    ),
    unroll_fn=lambda inputs, state: network().unroll(inputs, state),
  )


class EpisodeLog(loggers.Logger):
  """Appends a line for each episode that an environment loop logs."""

  def __init__(self, path: pathlib.Path, action_repeat: int):
    self._path = path
    self._action_repeat = action_repeat
    self._steps = 0

  def write(self, data):
    """Adds an episode."""
    self._steps += self._action_repeat * int(data["episode_length"])
    with open(self._path, "a") as file:
      file.write(json.dumps({
        "steps": self._steps, "return": float(data["episode_return"])
      }) + "\n")

  def close(self):
    """Does nothing."""


def run(case: str, log: pathlib.Path):
  """Runs the agent; actor and learner take turns in this thread."""
  name, action_repeat, torso = CASES[case]
  environment = wrappers.SinglePrecisionWrapper(
    environments.make(name, seed=0)
  )
  spec = specs.make_environment_spec(environment)
  networks = make_networks(spec, torso)
  agent = impala.IMPALAFromConfig(
    environment_spec=spec,
    forward_fn=networks.forward_fn,
    unroll_init_fn=networks.unroll_init_fn,
    unroll_fn=networks.unroll_fn,
    initial_state_init_fn=networks.initial_state_init_fn,
    initial_state_fn=networks.initial_state_fn,
    # 20 transitions are 21 time steps, the last of which only bootstraps.
    config=impala.IMPALAConfig(
      batch_size=32, sequence_length=21, sequence_period=20
    ),
    logger=loggers.NoOpLogger(),
  )
  acme.EnvironmentLoop(
    environment, agent, logger=EpisodeLog(log, action_repeat)
  ).run()


def drop_timeout():
  """Lets Reverb's client ignore an argument that it no longer takes."""
  make_writer = reverb.Client.trajectory_writer

  def trajectory_writer(self, *args, get_signature_timeout_ms=None, **kwargs):
    del get_signature_timeout_ms
    return make_writer(self, *args, **kwargs)

  reverb.Client.trajectory_writer = trajectory_writer


def main():
  """Runs until killed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--log", type=pathlib.Path, required=True)
  parser.add_argument("--case", choices=list(CASES), default="cartpole")
  options = parser.parse_args()
  # Acme reads flags of its own.
  flags.FLAGS(sys.argv[:1])
  drop_timeout()
  run(options.case, options.log)


if __name__ == "__main__":
  main()
