"""Types of the update: experience, networks, state and results."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import optax

from acme_stac.config import STACConfig
from acme_stac.core.distributions import Distribution

Array = jax.Array
Params = Any
CoreState = Any
# η: name -> [P], unconstrained.
Metaparams = dict[str, Array]
# Name -> scalar, or one value per head [P].
Metrics = dict[str, Array]


class Trajectory(NamedTuple):
  """A batch of contiguous steps of experience, time-major.

  Row t has the dm_env time step t (`observation`, `reward`, `discount`,
  `step_type`) and the behaviour policy's decision there (`action`,
  `behaviour_log_prob`). Transition t leads from row t to row t+1, whose reward
  and discount belong to it. The row after a LAST step is the first of the next
  episode; there is no transition between them, and the action of the one and
  the reward and discount of the other are never used.

  Attributes:
    observation: nest of arrays [T+1, B, ...].
    action: [T+1, B, ...], as the distribution samples them.
    reward: [T+1, B], unclipped.
    discount: [T+1, B], the environment's own: 0 at a termination.
    step_type: [T+1, B] int, values of `dm_env.StepType`.
    behaviour_log_prob: [T+1, B], log μ(a|x).
    core_state: nest of arrays [B, ...], the recurrent state *before* row 0.
  """

  observation: Any
  # Arrays of JAX or NumPy, or their specs or shardings.
  action: Any
  reward: Any
  discount: Any
  step_type: Any
  behaviour_log_prob: Any
  core_state: CoreState = ()


class NetworkOutput(NamedTuple):
  """Policies and values of all P heads.

  Attributes:
    policy: parameters of the action distribution, [..., P, K].
    value: [..., P]; [..., P + 1] if the outer loss has a value of its own,
      which is the last, as it does with an outer critic and where the average
      of the heads acts.
  """

  policy: Array
  value: Array


def check_output(
  output: NetworkOutput, rows: tuple[int, ...], config: STACConfig
) -> None:
  """Checks the shapes of the networks' output for rows of shape `rows`.

  Raises:
    ValueError: unless it has a policy and a value for every head.
  """
  heads = config.num_heads
  values = config.num_values
  if not isinstance(output, NetworkOutput):
    raise ValueError(
      "The networks must return a core.NetworkOutput, got"
      f" {type(output).__name__}."
    )
  policy, value = output.policy.shape, output.value.shape
  if policy[:-1] != (*rows, heads) or value != (*rows, values):
    raise ValueError(
      f"For rows {rows} and {heads} heads the networks must return a policy"
      f" [*rows, {heads}, K] and a value [*rows, {values}]"
      f"{', the last one of the outer loss' * (values > heads)}, but they"
      f" returned {policy} and {value}."
    )


class Networks(Protocol):
  """The networks that the update needs."""

  @property
  def init(self) -> Callable[[Array], Params]:
    """(random key) -> params."""

  @property
  def unroll(self) -> Callable[..., NetworkOutput]:
    """Applies the networks to sequences.

    (params, observation [T+1, B, ...], core_state [B, ...], step_type [T+1, B],
    conditioning [P, K]) -> NetworkOutput [T+1, B, P, ...]. The last argument
    holds the values of the K embedded metaparameters; K may be 0.
    """

  @property
  def distribution(self) -> Distribution:
    """The policy's family of distributions."""


class TrainingState(NamedTuple):
  """Everything that an update changes.

  Attributes:
    params: θ.
    optimizer_state: moments of the optimiser.
    metaparams: η, name -> [P].
    meta_optimizer_state: moments of the meta-optimiser.
    step: updates so far, skipped ones included; int32 scalar.
    skipped_updates: updates skipped because a number was not finite.
    ordered_updates: updates so far with either order of α_ρ and α_c, int32 [P]
      by the name of its metric; {} unless both are tuned apart.
  """

  params: Params
  optimizer_state: optax.OptState
  metaparams: Metaparams
  meta_optimizer_state: optax.OptState
  step: Array
  skipped_updates: Array
  ordered_updates: dict[str, Array]


class LossTerms(NamedTuple):
  """The unweighted terms of a loss: sums over time and batch, scalars.

  Attributes:
    value: Σ (v_s − V(x_s))².
    policy: −Σ ρ_s log π(a_s|x_s) A_s.
    entropy: Σ of the distribution's regulariser.
    advantage: Σ A_s = Σ (r_{s+1} + γ v_{s+1} − V(x_s)); not a term of the loss.
  """

  value: Array
  policy: Array
  entropy: Array
  advantage: Array


class InnerStep(NamedTuple):
  """Lines 10 to 12, from θ to θ'(η).

  Attributes:
    params: θ'(η).
    optimizer_state: of OPT, after its step.
    gradient: ∇_θ of the inner loss.
    loss: the inner loss, a scalar.
    terms: of the inner loss, per head [P].
    output: of the networks at θ, [T+1, B, P, ...].
  """

  params: Params
  optimizer_state: optax.OptState
  gradient: Params
  loss: Array
  terms: LossTerms
  output: NetworkOutput


class OuterStep(NamedTuple):
  """Lines 13 to 15, from η to η'.

  Attributes:
    metaparams: η'.
    meta_optimizer_state: of MetaOPT, after its step.
    metagradient: ∇_η of the outer loss.
    gradient: ∇_θ' of the outer loss.
    loss: what η minimises: the outer loss, its KL term included, or the
      distance to a bootstrapped target; a scalar.
    terms: of the outer loss at θ', means over the policies that may act.
    kl: KL(π_θ' || π_θ; T).
  """

  metaparams: Metaparams
  meta_optimizer_state: optax.OptState
  metagradient: Metaparams
  gradient: Params
  loss: Array
  terms: LossTerms
  kl: Array


class Update(NamedTuple):
  """A pair of pure functions, in the manner of optax.

  Attributes:
    init: (random key) -> TrainingState.
    update: (TrainingState, Trajectory, held_out) -> (TrainingState, metrics).
      The outer loss is measured on the trajectory `held_out`, by default on the
      one that is learned from. Metrics are scalars, or [P], one per head.
  """

  init: Callable[[Array], TrainingState]
  update: Callable[..., tuple[TrainingState, Metrics]]
