"""From an environment spec and a configuration to the agent's networks."""

import dataclasses
from collections.abc import Callable
from typing import Any

import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from acme_stac.config import STACConfig
from acme_stac.core.distributions import Categorical, Distribution
from acme_stac.core.types import Array, CoreState, NetworkOutput, Params
from acme_stac.networks import torsos


@dataclasses.dataclass(frozen=True)
class STACNetworks:
  """The agent's networks as pure functions.

  Attributes:
    init: (random key) -> params.
    unroll: (params, observation [T, B, ...], core_state [B, ...],
      step_type [T, B]) -> NetworkOutput [T, B, P, ...]. The core is reset
      before every row of type FIRST.
    step: (params, observation [B, ...], core_state [B, ...], step_type [B]) ->
      (NetworkOutput [B, P, ...], core_state). What `unroll` does at one row.
    initial_state: (batch size) -> core state [B, ...]; () without a core.
    distribution: the family of the policy.
  """

  init: Callable[[Array], Params]
  unroll: Callable[[Params, Any, CoreState, Array], NetworkOutput]
  step: Callable[
    [Params, Any, CoreState, Array], tuple[NetworkOutput, CoreState]
  ]
  initial_state: Callable[[int], CoreState]
  distribution: Distribution


def make_networks(environment_spec: Any, config: STACConfig) -> STACNetworks:
  """Makes the networks of Table 2 for an environment.

  Args:
    environment_spec: `acme.specs.EnvironmentSpec`, or anything with its
      `observations` and `actions`; the specs of one unbatched environment.
    config: the agent's configuration.

  Raises:
    ValueError: if the actions are not one discrete choice, or a convolutional
      torso is asked for observations that are no images.
  """
  num_actions = _check_actions(environment_spec.actions)
  _check_observations(environment_spec.observations, config.torso)

  def forward(observation, core_state, step_type):
    """Applies torso, core and heads to rows [T, B, ...]."""
    time, batch = step_type.shape
    rows = jax.tree_util.tree_map(
      lambda x: x.reshape((time * batch, *x.shape[2:])), observation
    )
    features = _make_torso(config)(rows).reshape((time, batch, -1))
    if config.lstm_size is not None:
      core = hk.ResetCore(hk.LSTM(config.lstm_size))
      reset = step_type == int(dm_env.StepType.FIRST)
      features, state = hk.dynamic_unroll(
        core, (features, reset), hk.LSTMState(*core_state)
      )
      core_state = tuple(state)
    policies, values = [], []
    for head in range(config.num_heads):
      policies.append(_head(config, num_actions, f"policy_{head}")(features))
      values.append(_head(config, 1, f"value_{head}")(features)[..., 0])
    output = NetworkOutput(jnp.stack(policies, -2), jnp.stack(values, -1))
    return output, core_state

  transformed: Any = hk.without_apply_rng(hk.transform(forward))

  def initial_state(batch_size: int) -> CoreState:
    if config.lstm_size is None:
      return ()
    zeros = jnp.zeros([batch_size, config.lstm_size])
    # A plain tuple (hidden, cell): Reverb gives back other named tuples.
    return zeros, zeros

  def init(key: Array) -> Params:
    observation = jax.tree_util.tree_map(
      lambda spec: jnp.zeros((1, 1, *spec.shape), spec.dtype),
      environment_spec.observations,
    )
    return transformed.init(
      key, observation, initial_state(1), jnp.zeros((1, 1), jnp.int32)
    )

  def unroll(params, observation, core_state, step_type):
    return transformed.apply(params, observation, core_state, step_type)[0]

  def step(params, observation, core_state, step_type):
    rows = jax.tree_util.tree_map(lambda x: x[None], observation)
    output, core_state = transformed.apply(
      params, rows, core_state, step_type[None]
    )
    return jax.tree_util.tree_map(lambda x: x[0], output), core_state

  return STACNetworks(init, unroll, step, initial_state, Categorical())


def _make_torso(config: STACConfig) -> Callable[[Any], Array]:
  if config.torso == "mlp":
    return torsos.MLPTorso(config.torso_sizes)
  if config.torso == "shallow":
    return torsos.ShallowTorso()
  return torsos.DeepTorso(config.torso_sizes)


def _head(config: STACConfig, size: int, name: str) -> hk.nets.MLP:
  return hk.nets.MLP([config.head_size, size], name=name)


def _check_actions(spec: Any) -> int:
  """Returns the number of actions, or raises ValueError."""
  num_values = getattr(spec, "num_values", None)
  if num_values is None or tuple(spec.shape):
    raise ValueError(
      "The agent acts by one discrete choice (dm_env.specs.DiscreteArray, shape"
      f" ()), but this environment's action spec is {spec!r}. Choose an"
      " environment with discrete actions, such as catch,"
      " gymnasium:CartPole-v1 or atari:pong."
    )
  return int(num_values)


def _check_observations(spec: Any, torso: str):
  """Raises ValueError for observations that the torso cannot take."""
  leaves = jax.tree_util.tree_leaves(spec)
  for leaf in leaves:
    if not np.issubdtype(leaf.dtype, np.number) and leaf.dtype != np.bool_:
      raise ValueError(
        f"Observations must be numbers, got {leaf!r} of dtype {leaf.dtype}."
      )
  if torso == "mlp":
    return
  if len(leaves) != 1 or len(leaves[0].shape) not in (2, 3):
    shapes = [leaf.shape for leaf in leaves]
    raise ValueError(
      f"The {torso!r} torso takes one image [height, width] or [height, width,"
      f" channels], but observations have shapes {shapes}. Set torso to 'mlp'."
    )
  if torso == "shallow" and sorted(leaves[0].shape)[-2] < 20:
    raise ValueError(
      "The 'shallow' torso needs images of at least 20×20 pixels, got"
      f" {leaves[0].shape}. Set torso to 'deep' or 'mlp'."
    )
