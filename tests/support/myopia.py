"""A corridor in which a metagradient that sees one update ahead is wrong.

State 0 chooses: action 0 pays 1 at once, action 1 leads through states 1 and 2
to a reward of 1.5. With γ above 0.816 the longer way is the better one. While
values are still near 0 the longer way looks worse than it is, so that one
update ahead a lower γ looks better; and with a low γ they stay there.

Every update learns from all state-action pairs at once, so that nothing is
random, with a table of logits and values.
"""

import types
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

import acme_stac
from acme_stac import core

REWARD = 1.5
NUM_STATES = 4
# What the problem fixes. RMSProp with ε = 1 steps nearly along the gradient.
_FIELDS = {
  "self_tuned": ("discount",), "discount": 0.99, "metaparameter_init": 2.0,
  "value_cost": 0.1, "policy_cost": 0.02, "entropy_cost": 0.004,
  "kl_cost": 0.0, "learning_rate": 0.5, "rmsprop_eps": 1.0,
  "rmsprop_decay": 0.0, "meta_learning_rate": 0.1, "meta_eps": 1e-8,
  "max_gradient_norm": None, "max_abs_reward": None, "trajectory_length": 1,
  "num_environment_steps": 10**9,
}


class Curves(NamedTuple):
  """What `train` gives, [updates] each.

  Attributes:
    discount: γ of the inner loss.
    episode_return: expected, undiscounted, of the policy before the update.
  """

  discount: np.ndarray
  episode_return: np.ndarray


def _experience() -> core.Trajectory:
  """Returns one transition of each state and action, [2, B]."""
  end = NUM_STATES - 1
  transitions = [
    (0, 0, 1.0, end), (0, 1, 0.0, 1),
    *[(1, action, 0.0, 2) for action in (0, 1)],
    *[(2, action, REWARD, end) for action in (0, 1)],
  ]
  state, action, reward, following = map(
    np.array, zip(*transitions, strict=True)
  )
  rows = np.stack([state, following])
  return core.Trajectory(
    observation=np.eye(NUM_STATES, dtype=np.float32)[rows],
    action=np.stack([action, 0 * action]).astype(np.int32),
    reward=np.stack([0 * reward, reward]).astype(np.float32),
    discount=np.float32(rows != end),
    step_type=np.full(rows.shape, dm_env.StepType.MID, np.int32),
    behaviour_log_prob=np.full(rows.shape, np.log(0.5), np.float32),
  )


def _networks(config: acme_stac.STACConfig) -> core.Networks:
  """Returns tables of logits and values, all 0 at the start."""

  def init(key):
    del key
    return {
      "policy": jnp.zeros([NUM_STATES, config.num_heads, 2]),
      "value": jnp.zeros([NUM_STATES, config.num_values]),
    }

  def unroll(params, observation, *rest):
    del rest
    return core.NetworkOutput(
      jnp.einsum("...s,spa->...pa", observation, params["policy"]),
      observation @ params["value"],
    )

  return types.SimpleNamespace(
    init=init, unroll=unroll, distribution=core.Categorical()
  )


def train(updates: int, **fields: Any) -> Curves:
  """Trains STAC with γ self-tuned from 0.88; `fields` change the agent."""
  experience = _experience()
  config = acme_stac.make_config("stac", "small", **{
    **_FIELDS, "batch_size": experience.action.shape[1], **fields,
  })
  update = core.make_update(_networks(config), config)

  def step(state, _):
    probability = jax.nn.softmax(state.params["policy"][0, 0])[1]
    state, metrics = update.update(state, experience)
    return state, (metrics["sigma_discount"][0], probability)

  @jax.jit
  def run(state):
    return jax.lax.scan(step, state, None, length=updates)

  _, (discount, probability) = jax.device_get(
    run(update.init(jax.random.PRNGKey(0)))
  )
  return Curves(discount, 1.0 + (REWARD - 1.0) * probability)
