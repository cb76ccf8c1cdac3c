"""Presets of agents and domains.

They differ from the defaults of `STACConfig`, which are the Atari column of
Table 3 of Zahavy et al. (2020).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from dm_env import specs

from acme_stac.checks import FieldError, unknown
from acme_stac.config import STACConfig
from acme_stac.environments import nests

_COSTS = ("value_cost", "policy_cost", "entropy_cost")
_NO_ALPHA = ("discount", "lambda_", *_COSTS)
_ALL = (*_NO_ALPHA, "alpha")
_STACX = {"num_heads": 3, "self_tuned": _ALL}
_FAR_SIGHTED: Mapping[str, Mapping[str, Any]] = {
  "outer_critic": {"outer_critic": True},
  "bootstrap": {"outer_loss": "bootstrap"},
  "bootstrap_outer_critic": {"outer_loss": "bootstrap", "outer_critic": True},
}
# Name -> fields that define the agent; docs/agents.md has a row for each.
AGENTS: Mapping[str, Mapping[str, Any]] = {
  "impala": {"num_heads": 1, "self_tuned": ()},
  "impala_aux": {"num_heads": 3, "self_tuned": ()},
  "stac": {"num_heads": 1, "self_tuned": _ALL},
  "stacx": _STACX,
  # The rows of Fig. 2.
  **{
    f"{agent}_{suffix}": {"num_heads": heads, "self_tuned": names}
    for agent, heads in (("stac", 1), ("stacx", 3))
    for suffix, names in {
      "gamma": ("discount",),
      "gamma_lambda": ("discount", "lambda_"),
      "no_alpha": _NO_ALPHA,
    }.items()
  },
  "stacx_split_alpha": {
    "num_heads": 3,
    "self_tuned": (*_NO_ALPHA, "alpha_rho", "alpha_c"),
  },
  "stacx_truncation": {
    "num_heads": 3,
    "self_tuned": (*_ALL, "clip_threshold"),
  },
  "stacx_random_ensemble": {**_STACX, "behaviour": "random_head"},
  "stacx_average_ensemble": {**_STACX, "behaviour": "average"},
  "metagradient_impala": {
    "num_heads": 1,
    "self_tuned": ("discount", "lambda_"),
    "outer_loss": "policy_gradient",
    "outer_batch": "next",
    "value_cost": 0.5,
  },
  "gamma_embedding": {
    "num_heads": 1,
    "self_tuned": ("discount", "lambda_"),
    "embedded": ("discount",),
  },
  "stacx_gamma_embedding": {**_STACX, "embedded": ("discount",)},
  # Hyperparameters of the replication, for every domain. Its losses are means
  # over 30 steps, with gradients clipped at 0.5 and a meta step size of 1e-4;
  # here losses are sums.
  "a2c_meta_gamma": {
    "num_heads": 1,
    "self_tuned": ("discount",),
    "discount": 0.99,
    "value_cost": 0.5,
    "policy_cost": 1.0,
    "entropy_cost": 0.0,
    "outer_loss": "policy_gradient",
    "outer_batch": "separate",
    "metaparameter_range": "clip",
    "metaparameter_init": 0.99,
    "meta_optimizer": "sgd",
    "meta_learning_rate": 1e-4 / 30,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "final_learning_rate": 0.01,
    "max_gradient_norm": 15.0,
    "batch_size": 1,
    "trajectory_length": 30,
    "trajectory_overlap": 0,
    "max_abs_reward": None,
    "torso": "mlp",
    "torso_sizes": (),
    "lstm_size": None,
    "head_sizes": (40, 40),
    "head_output_scale": 1.0,
  },
  # Metagradients that look further than one update.
  **{
    f"{agent}_{suffix}": {"num_heads": heads, "self_tuned": _ALL, **fields}
    for agent, heads in (("stac", 1), ("stacx", 3))
    for suffix, fields in _FAR_SIGHTED.items()
  },
}

# The control columns of Tables 2 and 3: the rows that both share.
_CONTROL = {
  "discount": 0.99,
  "learning_rate": 1e-3,
  "final_learning_rate": 1e-4,
  "batch_size": 24,
  "trajectory_length": 40,
  "trajectory_overlap": 30,
  "num_environment_steps": 30_000_000,
  "action_repeat": 1,
  "max_abs_reward": None,
  "lstm_size": 256,
}
_SMALL = {
  "discount": 0.99,
  "value_cost": 1.0,
  "entropy_cost": 0.03,
  "learning_rate": 4e-3,
  "max_gradient_norm": 40.0,
  "num_environment_steps": 500_000,
  "action_repeat": 1,
  "max_abs_reward": 0.1,
  "torso": "mlp",
  "torso_sizes": (256, 256),
}
_SMALL_PIXELS = {
  **_SMALL,
  "value_cost": 0.5,
  "entropy_cost": 0.01,
  "optimizer": "adam",
  "learning_rate": 5e-4,
  "batch_size": 16,
  "max_abs_reward": 1.0,
  "torso": "shallow",
}
# For small, dense rewards and expensive environment steps: as in Table 3,
# trajectories overlap, so that every step is learned from several times.
_SMALL_REUSE = {
  "learning_rate": 1e-3,
  "batch_size": 24,
  "trajectory_length": 40,
  "trajectory_overlap": 30,
  "max_abs_reward": None,
}
# Observations have angles and velocities of the order of 10. Without layer
# normalisation values oscillate, and those of auxiliary heads diverge.
_SMALL_CONTROL = {
  **_SMALL,
  **_SMALL_REUSE,
  "optimizer": "adam",
  "torso": "layer_norm_mlp",
}
# For rewards of any size, such as Pendulum's (down to -16) or LunarLander's
# (±100): unscaled, they saturate the policy before the values are learned.
# Chosen with short runs of IMPALA (docs/environments.md).
_SMALL_UNSCALED = {
  **_SMALL_CONTROL,
  "lambda_": 0.9,
  "learning_rate": 3e-4,
  "batch_size": 16,
  "reward_scale": 0.1,
}
# Name -> the fields that differ from `STACConfig`'s defaults (Atari).
DOMAINS: Mapping[str, Mapping[str, Any]] = {
  "atari": {},
  "control_features": {
    **_CONTROL,
    "torso": "mlp",
    "torso_sizes": (256, 256),
  },
  "control_pixels": {
    **_CONTROL,
    "torso": "deep_strided",
    "torso_sizes": (32, 32, 32),
  },
  # MinAtar, not in the papers: Table 3's RMSProp and number of updates
  # (78,125), Young & Tian's network, unclipped rewards, and a larger entropy
  # cost, without which Breakout's policy becomes deterministic too soon. Linear
  # heads need a larger step size than Table 3's.
  "minatar": {
    "entropy_cost": 0.05,
    "learning_rate": 2e-3,
    "num_environment_steps": 50_000_000,
    "action_repeat": 1,
    "max_abs_reward": None,
    "torso": "minatar",
    "head_sizes": (),
  },
  # The small domains are for a laptop, and not in the papers. "small" is for
  # discrete actions, vector observations and bounded rewards; it was chosen on
  # CartPole-v1. Rewards are clipped to 0.1 and gradients to norm 40, so that
  # RMSProp's ε damps the first steps. The value cost exceeds that of Table 3,
  # so that values are learned faster than policies; otherwise auxiliary heads
  # diverge.
  "small": _SMALL,
  # The same with rewards of any size; also for larger boards and small images.
  # An MLP of inputs in [0, 1] learns sooner with layer normalisation and with
  # overlapping trajectories; Adam alone is no better than RMSProp.
  "small_discrete": {
    **_SMALL_UNSCALED,
    "entropy_cost": 0.02,
    "max_abs_reward": 1.0,
  },
  # Discrete actions and a board of few cells, such as Catch's. The weights of
  # Table 3 suffice, because values of at most 1 are learned quickly.
  "small_board": {
    **_SMALL,
    "value_cost": 0.25,
    "entropy_cost": 0.01,
    "max_abs_reward": None,
  },
  # Discrete actions and images. While rewards are rare, RMSProp's ε of 0.1
  # exceeds the squared gradients, and learning would start after tens of
  # millions of frames.
  "small_pixels": _SMALL_PIXELS,
  "small_atari": {**_SMALL_PIXELS, "action_repeat": 4},
  # Continuous actions and bounded rewards, as in the DeepMind Control Suite.
  # The KL term that the entropy cost weights is a sum over the components of an
  # action: "small_control" is for several, "small_control_1" for one.
  "small_control": {**_SMALL_CONTROL, "entropy_cost": 0.005},
  "small_control_1": _SMALL_CONTROL,
  # The same with images.
  "small_control_pixels": {
    **_SMALL,
    **_SMALL_REUSE,
    "torso": "shallow",
  },
  # Continuous actions and rewards of any size, as in Gymnasium.
  "small_continuous": {
    **_SMALL_UNSCALED,
    "discount": 0.97,
    "entropy_cost": 0.003,
  },
  "small_continuous_1": {
    **_SMALL_UNSCALED,
    "discount": 0.95,
    "batch_size": 8,
    "reward_scale": 0.05,
  },
}
# Smallest height and width of an image.
_IMAGE_SIZE = 32
# Largest number of elements of a board. Sizes between a board and an image are
# treated as features.
_BOARD_SIZE = 100


def small_domain(environment_spec: Any) -> str:
  """Returns the small domain for an environment, a name in `DOMAINS`.

  It depends on the actions (discrete or continuous, number of components), the
  observation (image, board or features) and the rewards (bounded or not).

  Args:
    environment_spec: as returned by `acme_stac.environments.environment_spec`.
      Empty parts of the observation are ignored.
  """
  observation = nests.named_leaves("", environment_spec.observations)
  shapes = [leaf.shape for _, leaf in observation if math.prod(leaf.shape)]
  shape = shapes[0] if len(shapes) == 1 else ()
  is_image = len(shape) in (2, 3) and sorted(shape)[-2] >= _IMAGE_SIZE
  rewards = environment_spec.rewards
  is_bounded = isinstance(rewards, specs.BoundedArray) and (
    math.isfinite(rewards.minimum) and math.isfinite(rewards.maximum)
  )
  if isinstance(environment_spec.actions, specs.DiscreteArray):
    if is_image:
      return "small_pixels"
    if sum(size > 1 for size in shape) > 1:
      is_board = math.prod(shape) <= _BOARD_SIZE
      return "small_board" if is_board else "small_discrete"
    return "small" if is_bounded else "small_discrete"
  if is_image:
    return "small_control_pixels"
  domain = "small_control" if is_bounded else "small_continuous"
  size = math.prod(environment_spec.actions.shape)
  return f"{domain}_1" if size == 1 else domain


def make_config(
  agent: str,
  domain: str = "atari",
  environment_spec: Any = None,
  **overrides: Any,
) -> STACConfig:
  """Returns the configuration of a named agent.

  Args:
    agent: a name in `AGENTS`, for example "stacx".
    domain: a name in `DOMAINS`. "atari", "control_features" and
      "control_pixels" are the columns of Tables 2 and 3; "minatar" is for
      MinAtar's games; those that begin with "small" are for a laptop.
    environment_spec: selects a small domain if `domain` is "small", see
      `small_domain`; without it "small" is CartPole's. Other domains ignore it.
    **overrides: fields of `STACConfig`.

  Raises:
    ValueError: for an unknown agent, domain or field, or a field out of its
      range.
  """
  if not isinstance(agent, str) or agent not in AGENTS:
    raise FieldError(unknown("agent", agent, AGENTS), "agent")
  if not isinstance(domain, str) or domain not in DOMAINS:
    raise FieldError(unknown("domain", domain, DOMAINS), "domain")
  fields = [field.name for field in dataclasses.fields(STACConfig)]
  for name in overrides:
    if name not in fields:
      raise ValueError(unknown("config field", name, fields))
  if domain == "small" and environment_spec is not None:
    domain = small_domain(environment_spec)
  return STACConfig(**{**DOMAINS[domain], **AGENTS[agent], **overrides})
