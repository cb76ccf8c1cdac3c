"""The configuration of an agent, `STACConfig`.

Each field has its default, allowed values, meaning and source, from which
`acme_stac.reference` makes docs/reference.md. Defaults are those of Table 3 of
Zahavy et al. (2020) for Atari; `acme_stac.presets` has those of other agents
and domains.
"""

import dataclasses
import numbers
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from acme_stac.checks import Choice, FieldError, IntegerRange, NumberRange

# The learner counts its updates in 32 bits.
_MAX_UPDATES = 2**31 - 1
_METAPARAMETER = Choice(
  discount="γ",
  lambda_="λ",
  value_cost="g_v",
  policy_cost="g_p",
  entropy_cost="g_e",
  alpha="α_ρ = α_c",
  alpha_rho="α_ρ",
  alpha_c="α_c",
  clip_threshold="ρ̄ = c̄",
)
# Names that can be self-tuned, in the order in which they are logged.
METAPARAMETER_NAMES = tuple(_METAPARAMETER.meanings)

_COUNT = IntegerRange(1)
_UNIT = NumberRange(0.0, 1.0)
_DECAY = NumberRange(0.0, 1.0, below=True)
_NOT_NEGATIVE = NumberRange(0.0)
_POSITIVE = NumberRange(0.0, above=True)
# Outside this range single precision cannot tell actions or deviations apart.
_LOG_SIGMA = NumberRange(-10.0, 2.0)

_ESPEHOLT = "Espeholt et al. (2018)"
_FLENNERHAG = "Flennerhag et al. (2022)"
_XU = "Xu et al. (2018)"
_OURS = "this project"


def _field(default: Any, allowed: Any, meaning: str, source: str) -> Any:
  """Returns a field of the configuration.

  Args:
    default: the default value.
    allowed: range or choice of the value, or of each element of a tuple; see
      `checks`. A type hint with None also allows None.
    meaning: explains the field in the reference.
    source: origin of the field and its default.
  """
  return dataclasses.field(
    default=default,
    metadata={"allowed": allowed, "meaning": meaning, "source": source},
  )


@dataclasses.dataclass(frozen=True)
class STACConfig:
  """Hyperparameters of an actor-critic of the STAC family.

  Instances are immutable; derive a changed one with `dataclasses.replace`.
  docs/reference.md explains every field.

  Raises:
    FieldError: if a field is out of its range, or fields conflict.
  """

  num_heads: int = _field(
    3, IntegerRange(1, 100),
    "Number P of actor-critic heads: 1 is STAC, 3 is STACX.",
    "Table 3, P",
  )
  behaviour: str = _field(
    "head_0", Choice(
      head_0="the first head",
      random_head="a head drawn for every episode, with the mean outer loss of"
      " the heads",
      average="the mean of the heads' logits, with a value head of its own that"
      " learns with the outer hyperparameters",
    ),
    "Policy that acts and that the outer loss measures.",
    "section 9.3",
  )
  self_tuned: tuple[str, ...] = _field(
    (
      "discount", "lambda_", "value_cost", "policy_cost", "entropy_cost",
      "alpha",
    ), _METAPARAMETER,
    "Hyperparameters learned by metagradient, one scalar per name and head."
    " The others keep their outer value exactly: `()` is IMPALA.",
    "Table 1, Algorithm 2",
  )
  # Outer loss.
  discount: float = _field(
    0.995, _UNIT, "Outer discount γ.", "Table 3, γ outer"
  )
  lambda_: float = _field(
    1.0, _UNIT, "Outer λ of the trace.", "Table 3, λ outer"
  )
  alpha: float = _field(
    1.0, _UNIT,
    "Outer α_ρ = α_c of leaky V-trace: 1 is V-trace, 0 plain importance"
    " sampling.",
    "Table 3, α outer",
  )
  value_cost: float = _field(
    0.25, _NOT_NEGATIVE, "Outer weight g_v of the squared value error.",
    "Table 3, g_v outer",
  )
  policy_cost: float = _field(
    1.0, _NOT_NEGATIVE, "Outer weight g_p of the policy gradient.",
    "Table 3, g_p outer",
  )
  entropy_cost: float = _field(
    0.01, _NOT_NEGATIVE, "Outer weight g_e of the entropy bonus.",
    "Table 3, g_e outer",
  )
  kl_cost: float = _field(
    1.0, _NOT_NEGATIVE,
    "Weight g_kl of KL(π_θ' ‖ π_θ) in the outer loss `actor_critic`.",
    "Table 3, g_kl",
  )
  clip_rho_threshold: float = _field(
    1.0, _POSITIVE, "Truncation level ρ̄ of the importance weights.", _ESPEHOLT
  )
  clip_c_threshold: float = _field(
    1.0, _POSITIVE, "Truncation level c̄ of the trace coefficients.", _ESPEHOLT
  )
  outer_loss: str = _field(
    "actor_critic", Choice(
      actor_critic="Algorithm 1",
      policy_gradient="its policy term alone, as Xu et al. have it",
      bootstrap="the distance from θ' to a target some updates ahead",
    ),
    "The outer loss.", f"Algorithm 1; {_XU}; {_FLENNERHAG}",
  )
  outer_batch: str = _field(
    "same", Choice(
      same="that of the inner loss (Algorithm 2)",
      next="the batch after it, which the next update learns from (Xu et al.)",
      separate="a batch that no inner loss sees (an update consumes two)",
    ),
    "Experience of the outer loss.", f"Algorithm 2; {_XU}",
  )
  outer_critic: bool = _field(
    False, None,
    "The outer loss has a value head of its own, as an average ensemble always"
    " has, which learns with the outer hyperparameters.",
    "Bonnet et al. (2022)",
  )
  bootstrap_steps: int = _field(
    1, IntegerRange(1, 1000),
    "Steps L from θ' to the target: L − 1 inner updates, then one step down"
    " Algorithm 1's outer loss.",
    _FLENNERHAG,
  )
  bootstrap_value_cost: float = _field(
    0.0, _NOT_NEGATIVE,
    "Weight of squared value differences (an outer critic's, if there is one)"
    " in that distance, beside its KL.",
    _FLENNERHAG,
  )
  # Embedding of metaparameters.
  embedded: tuple[str, ...] = _field(
    (), Choice(**dict.fromkeys(METAPARAMETER_NAMES, "")),
    "Self-tuned names whose current value, per head, is embedded as an input of"
    " the heads.",
    f"{_XU}, section 1.4",
  )
  embedding_size: int = _field(16, _COUNT, "Units of that embedding.", _XU)
  embedding_per_head: bool = _field(
    False, None, "One embedding per head instead of a shared one.",
    "first preprint, section 8",
  )
  # Meta-optimiser.
  metaparameter_range: str = _field(
    "sigmoid", Choice(
      sigmoid="hyperparameters are σ(η)",
      clip="they are η itself, projected to [0, 1] after each update",
      double="as `sigmoid`, but 2σ(η) for loss weights, which start at η = 0"
      " and can rise",
    ),
    "From metaparameters η to hyperparameters.",
    f"Algorithm 2, line 10; Kao et al.; {_OURS}",
  )
  metaparameter_init: float = _field(
    4.6, NumberRange(),
    "Initial value of every η, save weights in the range `double`; σ(4.6) ≈"
    " 0.99.",
    "Table 3, η init",
  )
  meta_optimizer: str = _field(
    "adam", Choice(adam="Adam", sgd="plain gradient steps"),
    "Optimiser of η.", "Table 3",
  )
  meta_learning_rate: float = _field(
    1e-3, _NOT_NEGATIVE, "Step size of the meta-optimiser.", "Table 3"
  )
  meta_b1: float = _field(
    0.9, _DECAY, "First-moment decay of Adam.", "Table 3"
  )
  meta_b2: float = _field(
    0.999, _DECAY, "Second-moment decay of Adam.", "Table 3"
  )
  meta_eps: float = _field(1e-4, _POSITIVE, "ε of Adam.", "Table 3")
  # Optimiser.
  optimizer: str = _field(
    "rmsprop", Choice(
      rmsprop="RMSProp",
      adam="Adam with decays 0.9 and 0.999, ε = 1e-8, and 1e-16 inside the"
      " root, without which the metagradient has no derivative at 0",
    ),
    "Optimiser of the parameters; the metagradient flows through it.",
    "Table 3",
  )
  learning_rate: float = _field(
    6e-4, _NOT_NEGATIVE,
    "Initial step size. Losses are sums over time and batch: values from code"
    " that takes means do not transfer.",
    "Table 3",
  )
  final_learning_rate: float = _field(
    0.0, _NOT_NEGATIVE, "Step size at the end of the linear decay.", "Table 3"
  )
  rmsprop_decay: float = _field(
    0.99, _DECAY, "Second-moment decay of RMSProp.", "Table 3"
  )
  rmsprop_eps: float = _field(
    0.1, _POSITIVE, "ε of RMSProp, inside the square root.", "Table 3"
  )
  max_gradient_norm: float | None = _field(
    None, _POSITIVE,
    "Global norm to clip the gradient to; None: no clipping (IMPALA: 40).",
    _ESPEHOLT,
  )
  # Data.
  batch_size: int = _field(32, _COUNT, "Trajectories per update.", "Table 3, m")
  trajectory_length: int = _field(
    20, _COUNT, "Transitions per trajectory.", "Table 3, n"
  )
  trajectory_overlap: int = _field(
    0, IntegerRange(0), "Transitions that consecutive trajectories share.",
    "Table 3",
  )
  num_environment_steps: int = _field(
    200_000_000, IntegerRange(1, 10**15),
    "Budget of a run (frames for Atari), over which the step size decays.",
    "Table 3",
  )
  action_repeat: int = _field(
    4, _COUNT, "Environment steps (frames) per action.", "section 4"
  )
  reward_scale: float = _field(
    1.0, _POSITIVE,
    "Factor of rewards, for learning only. Large values swamp the first"
    " updates: choose one with which returns are of the order of 10.",
    _OURS,
  )
  max_abs_reward: float | None = _field(
    1.0, _POSITIVE,
    "Magnitude to clip rewards to, for learning only; None: no clipping.",
    _ESPEHOLT,
  )
  # Networks.
  torso: str = _field(
    "deep", Choice(
      mlp="multilayer perceptron",
      layer_norm_mlp="the same with its first layer normalised, as in Acme",
      minatar="a 3×3 convolution and a layer of 128, for boards of a few cells",
      shallow="IMPALA's small convolutional torso",
      deep="IMPALA's residual torso",
      deep_strided="the same with strides in place of pooling",
    ),
    "Torso of the network.", "Table 2",
  )
  image_channels: str = _field(
    "auto", Choice(
      auto="the axis shorter than both others, if these are equal or more than"
      " twice as long, and the last axis of a cube (other shapes are refused)",
      first="the first axis",
      last="the last axis",
    ),
    "Where images of three axes have their channels.", _OURS,
  )
  torso_sizes: tuple[int, ...] = _field(
    (16, 32, 32), _COUNT,
    "Hidden sizes of an MLP torso (`()`, only for mlp: none), or channels of a"
    " residual torso's stages.",
    "Table 2",
  )
  lstm_size: int | None = _field(
    None, _COUNT, "Units of the LSTM behind the torso; None: no LSTM.",
    "Table 2",
  )
  head_sizes: tuple[int, ...] = _field(
    (256,), _COUNT, "Hidden sizes of each policy head and each value head.",
    "Table 2",
  )
  head_output_scale: float = _field(
    0.01, _POSITIVE,
    "Scale of the initial weights of the heads' last layers. Well below 1, all"
    " heads start with the same policy and values near 0; a head that starts"
    " elsewhere learns off-policy at once, and its values may diverge.",
    _OURS,
  )
  log_sigma_min: float = _field(
    -3.0, _LOG_SIGMA,
    "Least log standard deviation of a continuous policy, before squashing.",
    "section 9.3, σ_min",
  )
  log_sigma_max: float = _field(
    0.5, _LOG_SIGMA, "Largest log standard deviation.", "section 9.3, σ_max"
  )
  compute_dtype: str = _field(
    "float32", Choice(
      float32="32-bit floats, rounded inside matrix products and convolutions"
      " where JAX does so by default (TF32 on NVIDIA GPUs since Ampere)",
      bfloat16="16-bit brain floats, for GPUs since Ampere and TPUs;"
      " parameters, the LSTM's state, heads, losses and optimisers keep 32",
    ),
    "Type in which torso and LSTM compute.", _OURS,
  )
  # Between actors and learner.
  variable_update_period: int = _field(
    1, _COUNT, "Trajectories between an actor's fetches of new parameters.",
    _OURS,
  )
  queue_batches: int = _field(
    2, _COUNT,
    "Capacity of the queue in batches; actors wait while it is full. It bounds"
    " the age of the acting policy; 2 lets actors fill a batch while the"
    " learner works on another.",
    _OURS,
  )

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = _plain(getattr(self, field.name), field)
      object.__setattr__(self, field.name, value)
      _check_field(field, value)
    self._check_metaparameters()
    self._check_shapes()

  def _check_metaparameters(self):
    """Raises FieldError for conflicting metaparameters."""
    for name in ("self_tuned", "embedded"):
      value = getattr(self, name)
      if len(set(value)) != len(value):
        raise FieldError(f"{name} has a name twice: {value}.", name)
    if "alpha" in self.self_tuned and {"alpha_rho", "alpha_c"} & set(
      self.self_tuned
    ):
      raise FieldError(
        "self_tuned has both 'alpha', which ties the two coefficients of leaky"
        " V-trace, and 'alpha_rho' or 'alpha_c', which tune them separately."
        " Choose one.", "self_tuned"
      )
    for name in self.embedded:
      if name not in self.self_tuned:
        raise FieldError(
          f"embedded has {name!r}, which is not self-tuned, so its embedding"
          f" would be constant. Self-tuned: {self.self_tuned}.", "embedded"
        )
    if self.metaparameter_range == "clip" and not (
      0.0 <= self.metaparameter_init <= 1.0
    ):
      raise FieldError(
        "With metaparameter_range 'clip', metaparameter_init must be in"
        f" [0, 1], got {self.metaparameter_init!r}.", "metaparameter_init"
      )
    for name, unused in (("bootstrap_steps", 1), ("bootstrap_value_cost", 0.0)):
      value = getattr(self, name)
      if value != unused and self.outer_loss != "bootstrap":
        raise FieldError(
          f"{name} is {value}, but only outer_loss 'bootstrap' has a target to"
          f" step to, not {self.outer_loss!r}.", name, "outer_loss",
        )

  def _check_shapes(self):
    """Raises FieldError for conflicting sizes."""
    if not self.torso_sizes and self.torso not in ("mlp", "minatar", "shallow"):
      raise FieldError(
        f"torso {self.torso!r} needs at least one torso size.", "torso_sizes"
      )
    if self.trajectory_overlap >= self.trajectory_length:
      raise FieldError(
        f"trajectory_overlap ({self.trajectory_overlap}) must be smaller than"
        f" trajectory_length ({self.trajectory_length}).",
        "trajectory_overlap", "trajectory_length",
      )
    if self.log_sigma_min >= self.log_sigma_max:
      raise FieldError(
        f"log_sigma_min ({self.log_sigma_min}) must be smaller than"
        f" log_sigma_max ({self.log_sigma_max}).",
        "log_sigma_min", "log_sigma_max",
      )
    if self.num_updates > _MAX_UPDATES:
      raise FieldError(
        f"num_environment_steps ({self.num_environment_steps}) makes"
        f" {self.num_updates} updates of {self.steps_per_update} steps, but"
        f" at most {_MAX_UPDATES} are possible. Set fewer steps, or a larger"
        " batch_size or trajectory_length.",
        "num_environment_steps", "batch_size", "trajectory_length",
      )

  @property
  def num_values(self) -> int:
    """Values that the networks return: the heads', and the outer loss's own."""
    has_critic = bool(self.outer_critic and self.self_tuned)
    return self.num_heads + (has_critic or self.behaviour == "average")

  @property
  def batches_per_update(self) -> int:
    """Batches that each learner update consumes."""
    return 2 if self.self_tuned and self.outer_batch == "separate" else 1

  @property
  def batches_ahead(self) -> int:
    """Batches that the learner holds in addition to those it has consumed."""
    return 1 if self.self_tuned and self.outer_batch == "next" else 0

  @property
  def batches_to_begin(self) -> int:
    """Batches that the first update needs: one or two."""
    return self.batches_per_update + self.batches_ahead

  @property
  def steps_per_trajectory(self) -> int:
    """Environment steps (frames) in each trajectory, without the overlap."""
    fresh = self.trajectory_length - self.trajectory_overlap
    return fresh * self.action_repeat

  @property
  def steps_per_update(self) -> int:
    """Environment steps (frames) that each learner update consumes."""
    trajectories = self.batches_per_update * self.batch_size
    return trajectories * self.steps_per_trajectory

  @property
  def num_updates(self) -> int:
    """Learner updates of a run: the budget, rounded up to whole batches."""
    return -(-self.num_environment_steps // self.steps_per_update)


def _plain(value: Any, field: dataclasses.Field) -> Any:
  """Returns a value as a Python number, or as a tuple for a tuple field.

  Raises:
    FieldError: if the field is a tuple and the value is not a sequence.
  """
  if typing.get_origin(field.type) is tuple:
    if isinstance(value, str) or not isinstance(value, Iterable):
      raise FieldError(
        f"{field.name} must be a tuple, got {value!r}.", field.name
      )
    return tuple(value)
  if isinstance(value, bool):
    return value
  # Also converts NumPy's scalars.
  if isinstance(value, numbers.Integral):
    return int(value)
  return float(value) if isinstance(value, numbers.Real) else value


def _check_field(field: dataclasses.Field, value: Any):
  """Raises FieldError for a value that the field does not allow."""
  allowed = field.metadata["allowed"]
  if typing.get_origin(field.type) is tuple:
    for element in value:
      allowed.check(f"element of {field.name}", element, field.name)
  elif field.type is bool:
    if not isinstance(value, bool):
      raise FieldError(
        f"{field.name} must be True or False, got {value!r}.", field.name
      )
  elif value is not None or type(None) not in typing.get_args(field.type):
    allowed.check(field.name, value)


# Field -> the names that it allows.
CHOICES: Mapping[str, tuple[str, ...]] = {
  field.name: tuple(field.metadata["allowed"].meanings)
  for field in dataclasses.fields(STACConfig)
  if field.type is str
}
