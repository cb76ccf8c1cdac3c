"""Evaluation on the device: episodes of a policy, as a pure function."""

from collections.abc import Callable
from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from acme_stac.config import STACConfig
from acme_stac.core import conditioning
from acme_stac.core.types import Array, TrainingState
from acme_stac.environment_loop import MAX_EPISODE_STEPS
from acme_stac.networks import STACNetworks, make_policy
from acme_stac.on_device.environment import Environment
from acme_stac.on_device.loop import start_episodes, step_episodes


class Evaluation(NamedTuple):
  """The episodes of an evaluation; all of shape [E].

  Attributes:
    episode_return: undiscounted sums of the environment's own rewards.
    length: numbers of actions.
    cut_off: whether the limit of the evaluation cut the episode off.
  """

  episode_return: Array
  length: Array
  cut_off: Array


def make_evaluator(
  environment: Environment,
  networks: STACNetworks,
  config: STACConfig,
  num_episodes: int,
  max_episode_steps: int = MAX_EPISODE_STEPS,
  greedy: bool = False,
) -> Callable[[TrainingState, Array], Evaluation]:
  """Returns (state, key) -> Evaluation, to be transformed and jitted.

  Each of E environments plays one episode.

  Args:
    environment: the environment.
    networks: the agent's networks.
    config: the agent's configuration.
    num_episodes: episodes E.
    max_episode_steps: actions after which an episode is cut off.
    greedy: take the most probable actions instead of samples.
  """
  policy = make_policy(networks, config, greedy)

  def evaluate(state: TrainingState, key: Array) -> Evaluation:
    embedded = conditioning(state.metaparams, config)
    key, reset_key = jax.random.split(key)
    episodes = start_episodes(environment, reset_key, num_episodes)
    done = jnp.zeros([num_episodes], bool)

    def goes_on(carry):
      episodes, _, _, done, steps = carry
      return ~jnp.all(done) & (steps < max_episode_steps)

    def step(carry):
      before, acting, key, done, steps = carry
      timestep = before.timestep
      action, _, acting, key = policy.select_action(
        state.params, timestep.observation, timestep.step_type, acting, key,
        embedded,
      )
      key, step_key = jax.random.split(key)
      after = step_episodes(
        environment, before, policy.to_environment(action), step_key
      )
      # What comes after the first episode does not count.
      after = after._replace(
        episode_return=jnp.where(
          done, before.episode_return, after.episode_return
        ),
        length=jnp.where(done, before.length, after.length),
      )
      done |= after.timestep.step_type == int(dm_env.StepType.LAST)
      return after, acting, key, done, steps + 1

    episodes, _, _, done, _ = jax.lax.while_loop(
      goes_on,
      step,
      (episodes, policy.initial_state(num_episodes), key, done, jnp.int32(0)),
    )
    return Evaluation(episodes.episode_return, episodes.length, ~done)

  return evaluate
