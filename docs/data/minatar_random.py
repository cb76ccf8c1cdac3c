"""Prints the mean returns of uniformly random actions in MinAtar's games.

Standard errors are 0.01, and 0.05 in Space Invaders. Takes minutes on a CPU:
PYTHONPATH=. python docs/data/minatar_random.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from dm_env import StepType

from acme_stac.on_device import Environment, registry

EPISODES = 4096
GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")


def play(environment: Environment, key: jax.Array) -> jax.Array:
  """Returns the return of an episode."""
  num_actions = environment.action_spec().num_values

  def step(carry):
    state, timestep, total, key = carry
    key, action_key, step_key = jax.random.split(key, 3)
    action = jax.random.randint(action_key, (), 0, num_actions)
    state, timestep = environment.step(state, action, step_key)
    return state, timestep, total + timestep.reward, key

  reset_key, key = jax.random.split(key)
  return jax.lax.while_loop(
    lambda carry: carry[1].step_type != int(StepType.LAST),
    step,
    (*environment.reset(reset_key), jnp.float32(0.0), key),
  )[2]


def main():
  """Plays each game."""
  for game in GAMES:
    environment = registry.make(f"gymnax:{game}-MinAtar")
    keys = jax.random.split(jax.random.PRNGKey(0), EPISODES)
    returns = np.asarray(
      jax.jit(jax.vmap(lambda key, env=environment: play(env, key)))(keys)
    )
    error = returns.std() / EPISODES**0.5
    print(f"{game}: {returns.mean():.3f} ± {error:.3f}", flush=True)


if __name__ == "__main__":
  main()
