"""The configuration of every agent: `STACConfig`, validated.

The values of its fields are those of Table 3 of Zahavy et al. (2020) for Atari
unless a field says otherwise; `acme_stac.presets` has the other ones.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from acme_stac.checks import (
  MAX_SIZE,
  FieldError,
  check_integer,
  check_number,
  unknown,
)

# Upper limits that catch typos before they exhaust memory or time.
_MAX_HEADS = 100
_MAX_LAYERS = 20
_MAX_STEPS = 10**15
# The state counts its updates in 32 bits.
_MAX_UPDATES = 2**31 - 1
# The names that can be self-tuned, in the order in which they are logged.
# `alpha` ties the two leaky V-trace coefficients; `alpha_rho` and `alpha_c`
# tune them apart. `clip_threshold` is the truncation level ρ̄ = c̄.
METAPARAMETER_NAMES = (
  "discount",
  "lambda_",
  "value_cost",
  "policy_cost",
  "entropy_cost",
  "alpha",
  "alpha_rho",
  "alpha_c",
  "clip_threshold",
)

# Field -> the values it can have; `STACConfig` says what they mean.
CHOICES: Mapping[str, tuple[str, ...]] = {
  "behaviour": ("head_0", "random_head", "average"),
  "outer_loss": ("actor_critic", "policy_gradient"),
  "outer_batch": ("same", "next", "separate"),
  "metaparameter_range": ("sigmoid", "clip"),
  "meta_optimizer": ("adam", "sgd"),
  "optimizer": ("rmsprop", "adam"),
  "image_channels": ("auto", "first", "last"),
  "torso": ("mlp", "layer_norm_mlp", "shallow", "deep", "deep_strided"),
}


@dataclasses.dataclass(frozen=True)
class STACConfig:
  """Hyperparameters of an actor-critic of the STAC family.

  Instances are immutable and validated at construction; derive a changed one
  with `dataclasses.replace`.

  Attributes:
    num_heads: number P of actor-critic heads. 1 is STAC, 3 STACX.
    behaviour: which policy acts, and with it whose performance the outer loss
      measures (section 9.3, "Behaviour policy"). "head_0": the first head.
      "random_head": a head drawn for every episode; the outer loss is the mean
      over the heads. "average": the mean of the heads' logits, whose value is
      learned by a value head of its own, with the outer hyperparameters.
    self_tuned: names of `METAPARAMETER_NAMES` that are learned by metagradient,
      one scalar per name and head. The others keep their outer value exactly,
      so that `()` is IMPALA.
    discount: outer discount γ (Table 3: 0.995 Atari, 0.99 control).
    lambda_: outer λ of the trace.
    alpha: outer α_ρ = α_c of leaky V-trace; 1 is V-trace, 0 plain importance
      sampling.
    value_cost: outer weight g_v of the squared value error.
    policy_cost: outer weight g_p of the policy gradient.
    entropy_cost: outer weight g_e of the entropy bonus.
    kl_cost: weight g_kl of KL(π_θ' || π_θ) in the outer loss.
    clip_rho_threshold: truncation level ρ̄ of the importance weights.
    clip_c_threshold: truncation level c̄ of the trace coefficients.
    outer_loss: "actor_critic" is Algorithm 1; "policy_gradient" its policy term
      alone, without value, entropy and KL terms (Xu et al., 2018).
    outer_batch: the experience of the outer loss. "same": that of the inner
      loss (Algorithm 2). "next": the batch after it, which the next update
      learns from (Xu et al.). "separate": a batch of its own that no inner loss
      sees; an update then consumes two.
    embedded: self-tuned names whose value of the moment, per head, is embedded
      and given to the heads besides the features (Xu et al., section 1.4).
    embedding_size: units of that embedding.
    embedding_per_head: an embedding for each head instead of a shared one.
    metaparameter_range: "sigmoid": hyperparameters are σ(η) (Algorithm 2 line
      10). "clip": they are η itself, projected to [0, 1] after each update.
    metaparameter_init: initial value of every η; σ(4.6) ≈ 0.99.
    meta_optimizer: "adam", or "sgd": plain gradient steps.
    meta_learning_rate: step size of the meta-optimiser.
    meta_b1: first-moment decay of Adam.
    meta_b2: second-moment decay of Adam.
    meta_eps: ε of Adam.
    optimizer: "rmsprop" (Table 3), or "adam" with the usual decays 0.9 and
      0.999, ε = 1e-8 and 1e-16 inside the root, without which the metagradient
      has no derivative at 0. The metagradient flows through either.
    learning_rate: initial step size of the optimiser. The losses are sums over
      time and batch, so values from code that takes means do not transfer.
    final_learning_rate: step size at the end of the linear decay.
    rmsprop_decay: decay of RMSProp's second moment.
    rmsprop_eps: ε of RMSProp, added inside the square root.
    max_gradient_norm: clip the gradient to this global norm; None leaves it as
      it is (Table 3 has no clipping; IMPALA's own is 40).
    batch_size: trajectories m per update.
    trajectory_length: transitions n per trajectory.
    trajectory_overlap: transitions that consecutive trajectories share.
    num_environment_steps: the budget of a run (frames for Atari); the learning
      rate decays over it.
    action_repeat: environment steps (frames) per action.
    reward_scale: multiply rewards by this for learning only. Large values swamp
      the first updates: sums of rewards should be of the order of 10.
    max_abs_reward: clip rewards to this magnitude for learning only; None
      leaves them as they are.
    torso: "mlp", "layer_norm_mlp", which normalises its first layer as Acme's
      LayerNormMLP does, "shallow" or "deep" (IMPALA's two convolutional
      torsos), or "deep_strided", "deep" with strides in place of pooling.
    image_channels: where images of three axes have their channels: "first",
      "last", or "auto": the axis that is shorter than both others, if these are
      equal or more than twice as long, and the last one of a cube; other shapes
      are refused then.
    torso_sizes: hidden sizes of the MLP torsos, () for none (of "mlp" alone),
      or channels of the deep torso's stages (Table 2).
    lstm_size: units of the LSTM behind the torso; None for none.
    head_sizes: hidden sizes of each policy and each value head.
    head_output_scale: scale of the initial weights of the heads' last layers.
      Well below 1 all heads start with the same policy and values near 0: an
      auxiliary head that starts elsewhere learns off-policy from the first
      update on, and its values may diverge (docs/results.md).
    log_sigma_min: σ_min of section 9.3, least log standard deviation of a
      continuous policy before squashing.
    log_sigma_max: σ_max of section 9.3, largest log standard deviation.
    variable_update_period: trajectories between an actor's fetches of new
      parameters.
    queue_batches: trajectories that may be on their way to the learner, in
      batches; actors wait beyond that. It bounds the age of the policy that
      acts. 2 lets actors fill a batch while the learner works on another.
  """

  num_heads: int = 3
  behaviour: str = "head_0"
  self_tuned: tuple[str, ...] = (
    "discount",
    "lambda_",
    "value_cost",
    "policy_cost",
    "entropy_cost",
    "alpha",
  )
  # Outer loss.
  discount: float = 0.995
  lambda_: float = 1.0
  alpha: float = 1.0
  value_cost: float = 0.25
  policy_cost: float = 1.0
  entropy_cost: float = 0.01
  kl_cost: float = 1.0
  clip_rho_threshold: float = 1.0
  clip_c_threshold: float = 1.0
  outer_loss: str = "actor_critic"
  outer_batch: str = "same"
  # Embedding of metaparameters.
  embedded: tuple[str, ...] = ()
  embedding_size: int = 16
  embedding_per_head: bool = False
  # Meta-optimiser.
  metaparameter_range: str = "sigmoid"
  metaparameter_init: float = 4.6
  meta_optimizer: str = "adam"
  meta_learning_rate: float = 1e-3
  meta_b1: float = 0.9
  meta_b2: float = 0.999
  meta_eps: float = 1e-4
  # Optimiser.
  optimizer: str = "rmsprop"
  learning_rate: float = 6e-4
  final_learning_rate: float = 0.0
  rmsprop_decay: float = 0.99
  rmsprop_eps: float = 0.1
  max_gradient_norm: float | None = None
  # Data.
  batch_size: int = 32
  trajectory_length: int = 20
  trajectory_overlap: int = 0
  num_environment_steps: int = 200_000_000
  action_repeat: int = 4
  reward_scale: float = 1.0
  max_abs_reward: float | None = 1.0
  # Networks.
  torso: str = "deep"
  image_channels: str = "auto"
  torso_sizes: tuple[int, ...] = (16, 32, 32)
  lstm_size: int | None = None
  head_sizes: tuple[int, ...] = (256,)
  head_output_scale: float = 0.01
  log_sigma_min: float = -3.0
  log_sigma_max: float = 0.5
  # Actors and the way between them and the learner.
  variable_update_period: int = 1
  queue_batches: int = 2

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if type(value).__module__ == "numpy" and hasattr(value, "item"):
        # A NumPy scalar is as good as a number of Python.
        object.__setattr__(self, field.name, value.item())
    for name in ("self_tuned", "embedded", "torso_sizes", "head_sizes"):
      value = getattr(self, name)
      if isinstance(value, str) or not isinstance(value, Iterable):
        raise FieldError(f"{name} must be a tuple, got {value!r}.", name)
      object.__setattr__(self, name, tuple(value))
    self._check_numbers()
    for name, known in CHOICES.items():
      value = getattr(self, name)
      if not isinstance(value, str) or value not in known:
        raise FieldError(unknown(name, value, known), name)
    self._check_metaparameters()
    if not self.torso_sizes and self.torso not in ("mlp", "shallow"):
      raise FieldError(
        f"torso {self.torso!r} needs at least one torso size.", "torso_sizes"
      )
    for name in ("torso_sizes", "head_sizes"):
      if len(getattr(self, name)) > _MAX_LAYERS:
        raise FieldError(
          f"{name} must have at most {_MAX_LAYERS} sizes, got"
          f" {len(getattr(self, name))}.", name
        )
    if self.trajectory_overlap >= self.trajectory_length:
      raise FieldError(
        f"trajectory_overlap ({self.trajectory_overlap}) must be smaller than"
        f" trajectory_length ({self.trajectory_length}).",
        "trajectory_overlap", "trajectory_length",
      )
    for name in ("log_sigma_min", "log_sigma_max"):
      # Beyond these, single precision cannot tell actions or deviations apart.
      check_number(name, getattr(self, name), -10.0, 2.0)
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
        f" {_MAX_UPDATES} is the most. Set fewer steps, or a larger batch_size"
        " or trajectory_length.",
        "num_environment_steps", "batch_size", "trajectory_length",
      )

  def _check_metaparameters(self):
    """Raises ValueError for names that do not fit together."""
    for name in self.self_tuned:
      if name not in METAPARAMETER_NAMES:
        raise FieldError(
          unknown("name in self_tuned", name, METAPARAMETER_NAMES),
          "self_tuned",
        )
    for name in ("self_tuned", "embedded"):
      value = getattr(self, name)
      if len(set(map(str, value))) != len(value):
        raise FieldError(f"{name} names something twice: {value}.", name)
    if "alpha" in self.self_tuned and {"alpha_rho", "alpha_c"} & set(
      self.self_tuned
    ):
      raise FieldError(
        "self_tuned has 'alpha', which ties both coefficients of leaky"
        " V-trace, beside 'alpha_rho' or 'alpha_c', which tune them apart."
        " Take one or the other.", "self_tuned"
      )
    for name in self.embedded:
      if name not in self.self_tuned:
        raise FieldError(
          f"embedded has {name!r}, which is not self-tuned, so that its"
          f" embedding would be a constant. Self-tuned: {self.self_tuned}.",
          "embedded",
        )
    if not isinstance(self.embedding_per_head, bool):
      raise FieldError(
        "embedding_per_head must be True or False, got"
        f" {self.embedding_per_head!r}.", "embedding_per_head"
      )
    if self.metaparameter_range == "clip" and not (
      0.0 <= self.metaparameter_init <= 1.0
    ):
      raise FieldError(
        "With metaparameter_range 'clip' metaparameter_init is a value in"
        f" [0, 1], got {self.metaparameter_init!r}.", "metaparameter_init"
      )

  def _check_numbers(self):
    """Raises ValueError for numbers that are out of their range."""
    positive_integers = {
      "num_heads": _MAX_HEADS,
      "batch_size": MAX_SIZE,
      "trajectory_length": MAX_SIZE,
      "num_environment_steps": _MAX_STEPS,
      "action_repeat": MAX_SIZE,
      "embedding_size": MAX_SIZE,
      "variable_update_period": MAX_SIZE,
      "queue_batches": MAX_SIZE,
    }
    for name, maximum in positive_integers.items():
      check_integer(name, getattr(self, name), 1, maximum)
    check_integer("trajectory_overlap", self.trajectory_overlap, minimum=0)
    for name in ("torso_sizes", "head_sizes"):
      for size in getattr(self, name):
        check_integer(f"each of {name}", size, 1, MAX_SIZE, field=name)
    if self.lstm_size is not None:
      check_integer("lstm_size", self.lstm_size, 1, MAX_SIZE)
    for name in ("discount", "lambda_", "alpha"):
      check_number(name, getattr(self, name), 0.0, 1.0)
    for name in ("rmsprop_decay", "meta_b1", "meta_b2"):
      check_number(name, getattr(self, name), 0.0, 1.0, below=True)
    for name in (
      "value_cost",
      "policy_cost",
      "entropy_cost",
      "kl_cost",
      "meta_learning_rate",
      "learning_rate",
      "final_learning_rate",
    ):
      check_number(name, getattr(self, name), 0.0)
    for name in (
      "rmsprop_eps",
      "meta_eps",
      "reward_scale",
      "clip_rho_threshold",
      "clip_c_threshold",
      "head_output_scale",
    ):
      check_number(name, getattr(self, name), 0.0, above=True)
    for name in ("max_gradient_norm", "max_abs_reward"):
      if getattr(self, name) is not None:
        check_number(name, getattr(self, name), 0.0, above=True)
    check_number("metaparameter_init", self.metaparameter_init)

  @property
  def batches_per_update(self) -> int:
    """Batches that each learner update consumes."""
    return 2 if self.self_tuned and self.outer_batch == "separate" else 1

  @property
  def batches_ahead(self) -> int:
    """Batches that the learner holds beyond those it has consumed."""
    return 1 if self.self_tuned and self.outer_batch == "next" else 0

  @property
  def batches_to_begin(self) -> int:
    """Batches that the first update needs: one or two."""
    return self.batches_per_update + self.batches_ahead

  @property
  def steps_per_trajectory(self) -> int:
    """Environment steps (frames) that each trajectory adds."""
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
