"""Makes the agent's networks from environment specs and a configuration."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import dm_env
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import numpy as np

from acme_stac.config import STACConfig
from acme_stac.core.distributions import Distribution
from acme_stac.core.types import Array, CoreState, NetworkOutput, Params
from acme_stac.environments import nests
from acme_stac.networks import actions, preprocessing, torsos


@dataclasses.dataclass(frozen=True)
class STACNetworks:
  """The agent's networks as pure functions.

  Attributes:
    init: (random key) -> params.
    unroll: (params, observation [T, B, ...], core_state [B, ...],
      step_type [T, B], conditioning [P, K]) -> NetworkOutput [T, B, P, ...].
      The core is reset before every row of type FIRST. `core.conditioning`
      returns the values of the K embedded metaparameters; K may be 0.
    step: (params, observation [B, ...], core_state [B, ...], step_type [B],
      conditioning [P, K]) -> (NetworkOutput [B, P, ...], core_state); one row
      of `unroll`.
    initial_state: (batch size) -> core state [B, ...]; () without a core.
    action_space: the policy's distribution and its actions.
  """

  init: Callable[[Array], Params]
  unroll: Callable[..., NetworkOutput]
  step: Callable[..., tuple[NetworkOutput, CoreState]]
  initial_state: Callable[[int], CoreState]
  action_space: actions.ActionSpace

  @property
  def distribution(self) -> Distribution:
    """The policy's family of distributions."""
    return self.action_space.distribution


def make_networks(environment_spec: Any, config: STACConfig) -> STACNetworks:
  """Makes the networks of Table 2 for an environment.

  Args:
    environment_spec: `acme.specs.EnvironmentSpec`, or anything with its
      `observations` and `actions`; the specs of one unbatched environment.
    config: the agent's configuration.

  Raises:
    ValueError: if the actions are neither one discrete choice nor bounded
      floats, or the torso cannot take the observations.
  """
  space = actions.make_action_space(environment_spec.actions, config)
  observation_spec = nests.plain_nest(environment_spec.observations)
  preprocess = preprocessing.make_preprocessor(
    observation_spec, config.torso, config.image_channels
  )

  def forward(observation, core_state, step_type, conditioning):
    """Applies torso, core and heads to rows [T, B, ...]."""
    time, batch = step_type.shape
    rows = jax.tree_util.tree_map(
      lambda x: x.reshape((time * batch, *x.shape[2:])), observation
    )
    torso: Any = _make_torso(config)
    with _mixed_precision(config, type(torso)):
      features = torso(preprocess(rows))
    features = features.reshape((time, batch, -1))
    if config.lstm_size is not None:
      core = hk.ResetCore(hk.LSTM(config.lstm_size))
      reset = step_type == int(dm_env.StepType.FIRST)
      # Only the matrix product: a bfloat16 cell would lose small changes.
      with _mixed_precision(config, hk.Linear):
        features, state = hk.dynamic_unroll(
          core, (features, reset), hk.LSTMState(*core_state)
        )
      core_state = tuple(state)
    embed = _make_embedding(config, conditioning)
    policies, values = [], []
    for head in range(config.num_heads):
      inputs = embed(features, head)
      policies.append(
        _head(config, space.num_params, f"policy_{head}")(inputs)
      )
      values.append(_head(config, 1, f"value_{head}")(inputs)[..., 0])
    if config.num_values > config.num_heads:
      name = "average" if config.behaviour == "average" else "outer"
      values.append(_head(config, 1, f"value_{name}")(features)[..., 0])
    output = NetworkOutput(jnp.stack(policies, -2), jnp.stack(values, -1))
    return output, core_state

  transformed: Any = hk.without_apply_rng(hk.transform(forward))

  def initial_state(batch_size: int) -> CoreState:
    if config.lstm_size is None:
      return ()
    zeros = jnp.zeros([batch_size, config.lstm_size])
    # A plain tuple (hidden, cell), since Reverb does not keep named tuples.
    return zeros, zeros

  def init(key: Array) -> Params:
    observation = jax.tree_util.tree_map(
      # NumPy first: JAX warns about requests for 64-bit types.
      lambda spec: jnp.asarray(np.zeros((1, 1, *spec.shape), spec.dtype)),
      observation_spec,
    )
    return transformed.init(
      key,
      observation,
      initial_state(1),
      jnp.zeros((1, 1), jnp.int32),
      jnp.zeros((config.num_heads, len(config.embedded))),
    )

  def unroll(params, observation, core_state, step_type, conditioning):
    return transformed.apply(
      params, observation, core_state, step_type, conditioning
    )[0]

  def step(params, observation, core_state, step_type, conditioning):
    rows = jax.tree_util.tree_map(lambda x: x[None], observation)
    output, core_state = transformed.apply(
      params, rows, core_state, step_type[None], conditioning
    )
    return jax.tree_util.tree_map(lambda x: x[0], output), core_state

  return STACNetworks(init, unroll, step, initial_state, space)


@contextlib.contextmanager
def _mixed_precision(config: STACConfig, module: type[hk.Module]):
  """Makes modules of a class compute in `config.compute_dtype`.

  Their parameters and outputs stay float32. Layer normalisation inside them
  computes in float32.
  """
  if config.compute_dtype == "float32":
    yield
    return
  # Not by its name, which NumPy may know as TensorFlow's type, not as JAX's.
  full, half = jnp.float32, jnp.bfloat16
  with (
    hk.mixed_precision.push_policy(module, jmp.Policy(full, half, full)),
    hk.mixed_precision.push_policy(
      hk.LayerNorm, jmp.Policy(full, full, half)
    ),
  ):
    yield


def _make_torso(config: STACConfig) -> hk.Module:
  if config.torso == "mlp":
    return torsos.MLPTorso(config.torso_sizes)
  if config.torso == "layer_norm_mlp":
    return torsos.LayerNormMLPTorso(config.torso_sizes)
  if config.torso == "shallow":
    return torsos.ShallowTorso()
  if config.torso == "minatar":
    return torsos.MinAtarTorso()
  return torsos.DeepTorso(
    config.torso_sizes, strided=config.torso == "deep_strided"
  )


def _head(
  config: STACConfig, size: int, name: str
) -> Callable[[Array], Array]:
  """Returns an MLP whose last layer starts small."""
  hidden = hk.nets.MLP(config.head_sizes, activate_final=True, name=name)
  # VarianceScaling scales the variance, hence the square.
  initializer = hk.initializers.VarianceScaling(config.head_output_scale**2)
  output = hk.Linear(size, w_init=initializer, name=f"{name}_output")
  return hk.Sequential([hidden, output])


def _make_embedding(
  config: STACConfig, conditioning: Array
) -> Callable[[Array, int], Array]:
  """Returns (features [..., D], head) -> the head's input.

  The input is the features and, if metaparameters are embedded, a linear
  embedding of the head's metaparameters (Xu et al., 2018, section 1.4).
  """
  if not config.embedded:
    return lambda features, head: features

  def linear(name: str) -> hk.Linear:
    return hk.Linear(config.embedding_size, with_bias=False, name=name)

  shared = None if config.embedding_per_head else linear("embedding")

  def embed(features: Array, head: int) -> Array:
    layer = shared or linear(f"embedding_{head}")
    embedding = layer(conditioning[head].astype(features.dtype))
    shape = (*features.shape[:-1], config.embedding_size)
    return jnp.concatenate(
      [features, jnp.broadcast_to(embedding, shape)], axis=-1
    )

  return embed
