"""The compiled policy, shared by the actors of a device."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np

from acme_stac.core import conditioning, init_metaparams
from acme_stac.core.types import Array
from acme_stac.networks import ActingState, Policy, STACNetworks
from acme_stac.training.compilation import compile_in_thread


class Inference:
  """Calls a policy on a device; compiles it once per number of environments."""

  def __init__(self, policy: Policy, device: jax.Device):
    """Prepares to call `policy` on `device`."""
    self.policy = policy
    self.device = device
    self._select = jax.jit(policy.select_action)
    self._compiled: dict[int, futures.Future[Callable[..., Any]]] = {}

  def compile(
    self, num_environments: int, networks: STACNetworks, spec: Any, config: Any
  ):
    """Compiles the policy from shapes in a thread; the first call waits for it.

    Args:
      num_environments: N.
      networks: the policy's networks.
      spec: specs of one environment.
      config: the agent's configuration.
    """
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
    self._compiled[num_environments] = compile_in_thread(
      self._select.lower(*place(shapes))
    )

  def __call__(
    self, params, observation, step_type, state, key, conditioning
  ) -> tuple[Array, Array, ActingState, Array]:
    """Calls `Policy.select_action`; returns before the result is computed."""
    compiled = self._compiled.get(len(step_type))
    select = compiled.result() if compiled else self._select
    return select(params, observation, step_type, state, key, conditioning)
