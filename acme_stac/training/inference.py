"""The compiled policy, which the actors of a device share."""

import threading
from typing import Any

import jax
import numpy as np

from acme_stac.core import conditioning, init_metaparams
from acme_stac.core.types import Array
from acme_stac.networks import ActingState, Policy, STACNetworks


class Inference:
  """Calls a policy on a device; compiles it once per number of environments."""

  def __init__(self, policy: Policy, device: jax.Device):
    """Takes how to act, and the device to infer on."""
    self.policy = policy
    self.device = device
    self._select = jax.jit(policy.select_action)
    self._compiled: dict[int, Any] = {}
    self._compiling = threading.Lock()

  def compile(
    self, num_environments: int, networks: STACNetworks, spec: Any, config: Any
  ):
    """Compiles a call ahead of time, from shapes; the device stays idle.

    Args:
      num_environments: N.
      networks: the policy's.
      spec: specs of one environment.
      config: the agent's configuration.
    """
    with self._compiling:
      if num_environments in self._compiled:
        return
      sharding = jax.sharding.SingleDeviceSharding(self.device)

      def place(shapes: Any) -> Any:
        return jax.tree_util.tree_map(
          lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
          ),
          shapes,
        )

      key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
      shapes = (
        jax.eval_shape(networks.init, key),
        jax.tree_util.tree_map(
          lambda leaf: jax.ShapeDtypeStruct(
            (num_environments, *leaf.shape), leaf.dtype
          ),
          spec.observations,
        ),
        jax.ShapeDtypeStruct((num_environments,), np.int32),
        jax.eval_shape(lambda: self.policy.initial_state(num_environments)),
        key,
        jax.eval_shape(lambda: conditioning(init_metaparams(config), config)),
      )
      self._compiled[num_environments] = (
        self._select.lower(*place(shapes)).compile()
      )

  def __call__(
    self, params, observation, step_type, state, key, conditioning
  ) -> tuple[Array, Array, ActingState, Array]:
    """Calls `Policy.select_action`; returns before it is computed."""
    select = self._compiled.get(len(step_type), self._select)
    return select(params, observation, step_type, state, key, conditioning)
