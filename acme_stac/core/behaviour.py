"""Which of the heads' policies act (section 9.3, "Behaviour policy")."""

import jax.numpy as jnp

from acme_stac.config import STACConfig
from acme_stac.core.types import NetworkOutput


def acting_output(output: NetworkOutput, config: STACConfig) -> NetworkOutput:
  """Returns the policies that may act, and their values.

  These are what the outer loss measures. One of them acts throughout an
  episode: head 0; any head of a random ensemble; or the average of the heads'
  policy parameters (of a softmax policy: of its logits).

  Args:
    output: of all heads, [..., P, K] and [..., P]; of an average ensemble the
      value [..., P + 1].
    config: the agent's configuration.

  Returns:
    Policies [..., Q, K] and values [..., Q], with Q = P for a random ensemble
    and otherwise 1.
  """
  if config.behaviour == "random_head":
    return output
  if config.behaviour == "average":
    mean = jnp.mean(output.policy, axis=-2, keepdims=True)
    return NetworkOutput(mean, output.value[..., -1:])
  return NetworkOutput(output.policy[..., :1, :], output.value[..., :1])
