"""The challenges of Real-World RL, as wrappers of any dm_env environment.

`Challenges` says what is wrong with the world; `wrap` puts it around an
environment whose observations are an array or a dict of arrays:

  action      → delay → noise → clip to the bounds → dropped → stuck → repeated
  observation → noise → dropped → stuck → (constraints) → delay → (random
                entries) → (objectives)
  reward      → delay

Each arrow is a stage, a small callable; `Actions`, `Observations`, `Rewards`
and `ExtraObservations` are the wrappers that apply stages, alone or in any
other order. The suite itself is in `rwrl`.
"""

import collections
import dataclasses
import functools
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import dm_env
import numpy as np
import yaml
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import wrappers

# Steps of an episode: what is later than that never comes.
_MAX_DELAY = 1000
_MAX_ENTRIES = 10_000
_MAX_PERIOD = 10**9
LEVELS = ("none", "easy", "medium", "hard")
SCHEDULERS = (
  "constant",
  "random_walk",
  "drift_pos",
  "drift_neg",
  "cyclic_pos",
  "cyclic_neg",
  "uniform",
  "saw_wave",
)
# A numpy.random.Generator, or the module numpy.random itself, whose functions
# of the same names draw from the global generator.
Rng = Any


@functools.cache
def suite_data() -> Mapping[str, Any]:
  """Returns the suite's numbers, data/rwrl_challenges.yaml."""
  package = importlib.resources.files("acme_stac.environments")
  text = (package / "data" / "rwrl_challenges.yaml").read_text()
  return yaml.safe_load(text)


@dataclasses.dataclass(frozen=True)
class Challenges:
  """Everything that can be wrong with the world; the default is nothing.

  Attributes:
    action_delay: control steps between an action and its effect.
    observation_delay: time steps by which observations are late.
    reward_delay: control steps by which rewards are late.
    action_noise: standard deviation of the Gaussian noise on every component
      of an action, in the action's own units.
    observation_noise: the same for observations.
    dropped_actions_probability: probability, at each step and for each
      component on its own, to start being 0.
    dropped_actions_steps: steps that this lasts.
    dropped_observations_probability: the same for observations.
    dropped_observations_steps: steps that this lasts.
    stuck_actions_probability: probability, at each step and for each component
      on its own, to start keeping its last value.
    stuck_actions_steps: steps that this lasts.
    stuck_observations_probability: the same for observations.
    stuck_observations_steps: steps that this lasts.
    repetition_probability: probability of an action to be repeated.
    repetition_steps: steps that a repeated action is applied, the first one
      included: 1 is no repetition.
    random_observations: extra observations of standard Gaussian noise.
    perturbation: name of the perturbed physical parameter, or "none".
    perturbation_scheduler: how its value moves, one of `SCHEDULERS`.
    perturbation_period: episodes between new values.
    perturbation_start: the value that the scheduler starts from. None, here
      and below, is the domain's own number.
    perturbation_min: the least value.
    perturbation_max: the largest value.
    perturbation_std: standard deviation of a step of the scheduler.
    safety: whether the task's safety constraints are evaluated.
    safety_coefficient: from 0, which hardly any state satisfies, to 1, the
      loosest constraints.
    safety_observed: whether observations get the entry `constraints`.
    safety_constraints: which of the task's constraints; () are its default
      ones, all but "action_rate".
    multi_objective_alpha: weight of the share of satisfied constraints in the
      reward, the task's own reward having 1 − alpha.
    multi_objective_observed: whether observations get the entry `multiobj`,
      the task's own reward and the share of satisfied constraints.
  """

  action_delay: int = 0
  observation_delay: int = 0
  reward_delay: int = 0
  action_noise: float = 0.0
  observation_noise: float = 0.0
  dropped_actions_probability: float = 0.0
  dropped_actions_steps: int = 1
  dropped_observations_probability: float = 0.0
  dropped_observations_steps: int = 1
  stuck_actions_probability: float = 0.0
  stuck_actions_steps: int = 1
  stuck_observations_probability: float = 0.0
  stuck_observations_steps: int = 1
  repetition_probability: float = 0.0
  repetition_steps: int = 1
  random_observations: int = 0
  perturbation: str = "none"
  perturbation_scheduler: str = "constant"
  perturbation_period: int = 1
  perturbation_start: float | None = None
  perturbation_min: float | None = None
  perturbation_max: float | None = None
  perturbation_std: float | None = None
  safety: bool = False
  safety_coefficient: float = 1.0
  safety_observed: bool = True
  safety_constraints: tuple[str, ...] = ()
  multi_objective_alpha: float = 0.0
  multi_objective_observed: bool = False

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, np.generic):
        # A NumPy scalar is as good as a number of Python.
        object.__setattr__(self, field.name, value.item())
    for name in ("action_delay", "observation_delay", "reward_delay"):
      checks.check_integer(name, getattr(self, name), 0, _MAX_DELAY)
    checks.check_integer(
      "random_observations", self.random_observations, 0, _MAX_ENTRIES
    )
    for name in (
      "dropped_actions_steps",
      "dropped_observations_steps",
      "stuck_actions_steps",
      "stuck_observations_steps",
      "repetition_steps",
      "perturbation_period",
    ):
      checks.check_integer(name, getattr(self, name), 1, _MAX_PERIOD)
    for name in (
      "dropped_actions_probability",
      "dropped_observations_probability",
      "stuck_actions_probability",
      "stuck_observations_probability",
      "repetition_probability",
      "safety_coefficient",
      "multi_objective_alpha",
    ):
      checks.check_number(name, getattr(self, name), 0.0, 1.0)
    for name in ("action_noise", "observation_noise"):
      checks.check_number(name, getattr(self, name), 0.0)
    for name in ("safety", "safety_observed", "multi_objective_observed"):
      if not isinstance(getattr(self, name), bool):
        raise ValueError(
          f"{name} must be True or False, got {getattr(self, name)!r}."
        )
    self._check_perturbation()
    names = self.safety_constraints
    if not isinstance(names, (tuple, list)) or not all(
      isinstance(name, str) for name in names
    ):
      raise ValueError(
        f"safety_constraints must be a tuple of names, got {names!r}."
      )
    if len(set(names)) < len(names):
      raise ValueError(f"safety_constraints names one twice: {names}.")
    object.__setattr__(self, "safety_constraints", tuple(names))
    if self.multi_objective and not self.safety:
      raise ValueError(
        "The multi-objective reward is made of the safety constraints. Set"
        " safety=True too."
      )
    self._check_unused("safety_", "safety=True", unused=not self.safety)

  def _check_unused(self, prefix: str, switch: str, unused: bool):
    """Raises ValueError for a field that nothing would read."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if unused and field.name.startswith(prefix) and value != field.default:
        raise ValueError(
          f"{field.name} is {value!r}, but nothing reads it. Set {switch} too."
        )

  def _check_perturbation(self):
    """Raises ValueError for a perturbation that cannot work."""
    if self.perturbation_scheduler not in SCHEDULERS:
      raise ValueError(
        checks.unknown(
          "perturbation_scheduler", self.perturbation_scheduler, SCHEDULERS
        )
      )
    # Nothing has no length and no mass; friction and damping may be 0.
    sized = self.perturbation.endswith(("length", "mass", "size", "density"))
    for name in ("start", "min", "max", "std"):
      value = getattr(self, f"perturbation_{name}")
      if value is not None:
        checks.check_number(
          f"perturbation_{name}", value, 0.0, above=sized and name != "std"
        )
    self._check_unused(
      "perturbation_",
      "perturbation to the name of a parameter",
      unused=self.perturbation == "none",
    )
    low, high = self.perturbation_min, self.perturbation_max
    if low is not None and high is not None and low > high:
      raise ValueError(
        f"perturbation_min ({low}) must not be larger than perturbation_max"
        f" ({high})."
      )

  @property
  def multi_objective(self) -> bool:
    """Whether the safety constraints count as a second objective."""
    return self.multi_objective_alpha > 0.0 or self.multi_objective_observed

  @classmethod
  def combined(cls, domain: str, level: str, **changes: Any) -> "Challenges":
    """Returns a combined challenge of the suite.

    Args:
      domain: "cartpole", "walker", "quadruped" or "humanoid".
      level: one of `LEVELS`.
      **changes: fields to set besides. Another `perturbation` than the level's
        takes its range from the domain, not from the level.

    Raises:
      ValueError: for an unknown domain, level or field, with near matches, and
        for a field out of its range.
    """
    domains = suite_data()["domains"]
    if domain not in domains:
      raise ValueError(checks.unknown("domain", domain, domains))
    if level not in LEVELS:
      raise ValueError(checks.unknown("level", level, LEVELS))
    names = [field.name for field in dataclasses.fields(cls)]
    for name in changes:
      if name not in names:
        raise ValueError(checks.unknown("challenge option", name, names))
    fields = {} if level == "none" else _level_fields(domain, level)
    perturbed = fields.get("perturbation")
    wanted = changes.get("perturbation", perturbed)
    if wanted != perturbed:
      for name in ("start", "min", "max", "std"):
        fields.pop(f"perturbation_{name}", None)
    if wanted == "none":
      fields.pop("perturbation_scheduler", None)
      fields.pop("perturbation_period", None)
    return cls(**{**fields, **changes})


def _level_fields(domain: str, level: str) -> dict[str, Any]:
  """Returns the fields of `Challenges` that a level sets."""
  common = suite_data()["levels"][level]
  perturb = suite_data()["domains"][domain]["perturb"]
  noise = common["noise"]
  fields = {
    "action_delay": common["delay"]["actions"],
    "observation_delay": common["delay"]["observations"],
    "reward_delay": common["delay"]["rewards"],
    "action_noise": noise["gaussian"]["actions"],
    "observation_noise": noise["gaussian"]["observations"],
    "repetition_probability": noise["repetition"]["actions_prob"],
    "repetition_steps": noise["repetition"]["actions_steps"],
    "random_observations": common["dimensionality"][
      "num_random_state_observations"
    ],
    "perturbation": perturb["param"],
    "perturbation_scheduler": common["perturb"]["scheduler"],
    "perturbation_period": common["perturb"]["period"],
    "perturbation_start": perturb["start"],
    "perturbation_min": perturb[level]["min"],
    "perturbation_max": perturb[level]["max"],
    "perturbation_std": perturb[level]["std"],
  }
  for kind in ("dropped", "stuck"):
    for what in ("actions", "observations"):
      fields[f"{kind}_{what}_probability"] = noise[kind][f"{what}_prob"]
      fields[f"{kind}_{what}_steps"] = noise[kind][f"{what}_steps"]
  return fields


class Schedule:
  """The values of a perturbed parameter.

  Schedulers walk from `start` with normal steps δ of deviation `std`, their
  values clipped to [minimum, maximum]: `constant` stays; `random_walk` adds δ;
  `drift_pos` and `drift_neg` add and subtract |δ|; `cyclic_pos` and
  `cyclic_neg` do too, and go back to `start` at the end of the range;
  `uniform` draws from the whole range; `saw_wave` goes up by |δ| to the
  maximum, down to the minimum, and so on.
  """

  def __init__(
    self,
    scheduler: str,
    *,
    start: float,
    minimum: float,
    maximum: float,
    std: float,
    rng: Rng,
    exact: bool = False,
  ):
    """Makes the schedule; `next` returns its values.

    Args:
      scheduler: one of `SCHEDULERS`.
      start: the value before the first step.
      minimum: the least value.
      maximum: the largest value.
      std: standard deviation of a step.
      rng: draws the steps.
      exact: whether `saw_wave` is the published suite's, which forgets its
        value: the step itself becomes the value.
    """
    self._scheduler = scheduler
    self._start = self._value = start
    self._minimum, self._maximum, self._std = minimum, maximum, std
    self._rng = rng
    self._exact = exact
    self._sign = 1.0

  def next(self) -> float:
    """Returns the next value."""
    # Drawn whatever the scheduler, as the published suite does.
    delta = self._rng.normal(scale=self._std)
    value = self._value
    if self._scheduler == "random_walk":
      value += delta
    elif self._scheduler == "drift_pos":
      value += abs(delta)
    elif self._scheduler == "drift_neg":
      value -= abs(delta)
    elif self._scheduler == "cyclic_pos":
      value += abs(delta)
      if value >= self._maximum:
        value = self._start
    elif self._scheduler == "cyclic_neg":
      value -= abs(delta)
      if value <= self._minimum:
        value = self._start
    elif self._scheduler == "uniform":
      value = self._rng.uniform(self._minimum, self._maximum)
    elif self._scheduler == "saw_wave":
      value = self._saw_wave(abs(delta))
    self._value = float(np.clip(value, self._minimum, self._maximum))
    return self._value

  def _saw_wave(self, step: float) -> float:
    if self._exact:
      value = self._sign * step
      if not self._minimum < value < self._maximum:
        self._sign = -self._sign
      return value
    value = self._value + self._sign * step
    if value >= self._maximum:
      self._sign = -1.0
    elif value <= self._minimum:
      self._sign = 1.0
    return value


class Stage(Protocol):
  """What happens to a value on its way in or out of an environment."""

  def __call__(self, value: Any) -> Any:
    """Returns what becomes of the next value, which is not modified."""

  def reset(self):
    """Forgets all values."""


class Delay:
  """Returns the value of `steps` calls ago, or else the first one."""

  def __init__(self, steps: int):
    self._steps = steps
    self._values: collections.deque[Any] = collections.deque()

  def __call__(self, value: Any) -> Any:
    if not self._values:
      self._values.extend([value] * self._steps)
    self._values.append(value)
    return self._values.popleft()

  def reset(self):
    """Forgets all values: the next one is a first one."""
    self._values.clear()


class GaussianNoise:
  """Adds independent normal noise, then clips to the bounds if there are."""

  def __init__(self, std: float, rng: Rng, bounds: Any = None):
    self._std, self._rng, self._bounds = std, rng, bounds

  def __call__(self, value: np.ndarray) -> np.ndarray:
    value = self._rng.normal(value, self._std)
    return value if self._bounds is None else np.clip(value, *self._bounds)

  def reset(self):
    """Has nothing to forget."""


class _Spells:
  """Spells of `steps` calls that start at random, each component on its own.

  A call that is in no spell starts one with the probability. Starts are drawn
  for all components at every call, for those in a spell too.
  """

  def __init__(self, probability: float, steps: int, rng: Rng):
    self._probability, self._steps, self._rng = probability, steps, rng
    self._left: np.ndarray | None = None

  def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
    """Returns which components are in a spell at this call, bool of `shape`."""
    left = np.zeros(shape, np.int64) if self._left is None else self._left
    starts = self._rng.binomial(1, self._probability, size=shape) == 1
    left = np.where((left == 0) & starts, self._steps, left)
    active = left > 0
    self._left = left - active
    return active

  def reset(self):
    self._left = None


class Dropped:
  """Sets components to 0 for a number of steps that start at random."""

  def __init__(self, probability: float, steps: int, rng: Rng):
    self._spells = _Spells(probability, steps, rng)

  def __call__(self, value: np.ndarray) -> np.ndarray:
    return np.where(self._spells(value.shape), 0.0, value)

  def reset(self):
    """Ends every drop."""
    self._spells.reset()


class Stuck:
  """Keeps components at their last value for steps that start at random.

  The last value is what this stage returned: what sticks is the noise of one
  moment, and a drop that sticks stays 0.
  """

  def __init__(self, probability: float, steps: int, rng: Rng):
    self._spells = _Spells(probability, steps, rng)
    self._previous: np.ndarray | None = None

  def __call__(self, value: np.ndarray) -> np.ndarray:
    previous = value if self._previous is None else self._previous
    self._previous = np.where(self._spells(value.shape), previous, value)
    return self._previous

  def reset(self):
    """Frees every component and forgets the last values."""
    self._spells.reset()
    self._previous = None


class Repetition:
  """Applies a value `steps` times with a probability; others are lost."""

  def __init__(self, probability: float, steps: int, rng: Rng):
    self._probability, self._steps, self._rng = probability, steps, rng
    self._left = 0
    self._held: Any = None

  def __call__(self, value: Any) -> Any:
    if self._left:
      self._left -= 1
      return self._held
    if self._rng.uniform() < self._probability:
      self._left = self._steps - 1
    self._held = value
    return value

  def reset(self):
    """Ends a repetition."""
    self._left = 0


class Challenge(wrappers.Wrapper):
  """Passes everything through; subclasses change what goes in or comes out."""

  def __init__(
    self, environment: dm_env.Environment, *stages: Stage, carry_over=False
  ):
    """Wraps an environment.

    Args:
      environment: what is wrapped.
      *stages: what subclasses apply, in this order.
      carry_over: whether stages go on when a new episode starts; otherwise
        they forget the old one.
    """
    super().__init__(environment)
    self._stages = stages
    self._carry_over = carry_over
    self._needs_reset = True

  def _apply(self, value: Any) -> Any:
    for stage in self._stages:
      value = stage(value)
    return value

  def _incoming(self, action: Any) -> Any:
    return action

  def _outgoing(self, step: dm_env.TimeStep) -> dm_env.TimeStep:
    return step

  def reset(self) -> dm_env.TimeStep:
    self._needs_reset = False
    if not self._carry_over:
      for stage in self._stages:
        stage.reset()
    return self._outgoing(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    if self._needs_reset:
      # Nobody performs this action.
      return self.reset()
    step = self._environment.step(self._incoming(action))
    self._needs_reset = step.last()
    return self._outgoing(step)


class Actions(Challenge):
  """Applies stages to every action, an array."""

  def __init__(
    self, environment: dm_env.Environment, *stages: Stage, carry_over=False
  ):
    super().__init__(environment, *stages, carry_over=carry_over)
    self._dtype = environment.action_spec().dtype

  def _incoming(self, action: Any) -> np.ndarray:
    # Copied: stages keep actions, and the caller may use the array again.
    return np.asarray(self._apply(np.array(action, self._dtype)), self._dtype)


class Rewards(Challenge):
  """Applies stages to every reward; a new episode has none."""

  def _outgoing(self, step: dm_env.TimeStep) -> dm_env.TimeStep:
    if step.first():
      return step
    return step._replace(reward=self._apply(step.reward))


class Observations(Challenge):
  """Applies stages to every observation, as one vector of all its entries.

  Random numbers are drawn entry by entry, in the order of the spec.
  """

  def __init__(
    self, environment: dm_env.Environment, *stages: Stage, carry_over=False
  ):
    """Wraps an environment, see `Challenge`.

    Raises:
      ValueError: for noise on observations that are not floating-point.
    """
    super().__init__(environment, *stages, carry_over=carry_over)
    spec = environment.observation_spec()
    self._is_dict = isinstance(spec, Mapping)
    self._entries = dict(spec) if self._is_dict else {"observation": spec}
    sizes = [int(np.prod(entry.shape)) for entry in self._entries.values()]
    self._ends = np.cumsum(sizes)[:-1]
    self._delay_only = all(isinstance(stage, Delay) for stage in stages)
    for name, entry in self._entries.items():
      if not self._delay_only and not np.issubdtype(entry.dtype, np.floating):
        raise ValueError(
          f"Noise needs floating-point observations, but {name!r} is"
          f" {np.dtype(entry.dtype).name}. Convert it first."
        )

  def _outgoing(self, step: dm_env.TimeStep) -> dm_env.TimeStep:
    observation = step.observation
    if not self._is_dict:
      observation = {"observation": observation}
    vector = self._apply(
      np.concatenate([np.ravel(observation[name]) for name in self._entries])
    )
    # astype copies: a delay may return the same vector again.
    entries = {
      name: part.reshape(spec.shape).astype(spec.dtype)
      for (name, spec), part in zip(
        self._entries.items(), np.split(vector, self._ends), strict=True
      )
    }
    return step._replace(
      observation=entries if self._is_dict else entries["observation"]
    )

  def observation_spec(self) -> Any:
    if self._delay_only:
      return self._environment.observation_spec()
    # Noise knows no bounds.
    entries = {
      name: specs.Array(spec.shape, spec.dtype, spec.name)
      for name, spec in self._entries.items()
    }
    return entries if self._is_dict else entries["observation"]


class ExtraObservations(Challenge):
  """Adds entries to every observation: to a dict, or to the end of a vector."""

  def __init__(
    self,
    environment: dm_env.Environment,
    entries: Mapping[str, specs.Array],
    read: Callable[[], Mapping[str, Any]],
  ):
    """Wraps an environment.

    Args:
      environment: what is wrapped.
      entries: specs of the new entries by name.
      read: returns their values, after every reset and step.

    Raises:
      ValueError: if observations are neither a dict nor a vector.
    """
    super().__init__(environment)
    self._entries, self._read = dict(entries), read
    spec = environment.observation_spec()
    if isinstance(spec, Mapping):
      self._spec: Any = {**spec, **entries}
    elif len(spec.shape) == 1:
      size = sum(int(np.prod(entry.shape)) for entry in entries.values())
      self._spec = specs.Array(
        (spec.shape[0] + size,), spec.dtype, name=spec.name
      )
    else:
      raise ValueError(
        "Entries can be added to a dict or to a vector, but observations have"
        f" shape {spec.shape}."
      )

  def _outgoing(self, step: dm_env.TimeStep) -> dm_env.TimeStep:
    extra = self._read()
    if isinstance(self._spec, Mapping):
      return step._replace(observation={**step.observation, **extra})
    parts = [step.observation, *(np.ravel(x) for x in extra.values())]
    observation = np.concatenate(parts).astype(self._spec.dtype)
    return step._replace(observation=observation)

  def observation_spec(self) -> Any:
    return self._spec


def wrap(
  environment: dm_env.Environment,
  challenges: Challenges,
  rng: Rng,
  *,
  constraints: Callable[[], np.ndarray] | None = None,
  objectives: Callable[[], np.ndarray] | None = None,
  exact: bool = False,
) -> dm_env.Environment:
  """Puts delays, noise, repetition and random entries around an environment.

  Args:
    environment: its observations must be an array or a dict of arrays.
    challenges: its perturbation, safety and multi-objective reward are the
      environment's own business; the entries `constraints` and `multiobj` are
      added here.
    rng: draws all the noise.
    constraints: returns the constraints' state, bool vector, for
      `safety_observed`.
    objectives: returns the objectives, [2], for `multi_objective_observed`.
    exact: follow the published suite where it is at fault, see `rwrl`.

  Raises:
    ValueError: for noise on actions or observations that are not
      floating-point.
  """
  if not isinstance(environment, dm_env.Environment):
    raise ValueError(
      "Challenges go around single dm_env environments, before they are made a"
      f" batch, got {environment!r}."
    )
  c = challenges
  action_spec = environment.action_spec()
  if c.action_noise and not np.issubdtype(action_spec.dtype, np.floating):
    raise ValueError(
      f"action_noise needs floating-point actions, got {action_spec}."
    )
  actions: list[Stage] = []
  sensors: list[Stage] = []
  if c.action_delay:
    actions.append(Delay(c.action_delay))
  # Both sides of a kind draw if one of them does, as in the published suite.
  if c.action_noise or c.observation_noise:
    bounds = None
    if isinstance(action_spec, specs.BoundedArray):
      bounds = (action_spec.minimum, action_spec.maximum)
    actions.append(GaussianNoise(c.action_noise, rng, bounds))
    sensors.append(GaussianNoise(c.observation_noise, rng))
  kinds: dict[str, type[Dropped] | type[Stuck]] = {
    "dropped": Dropped,
    "stuck": Stuck,
  }
  for kind, stage in kinds.items():
    probabilities = {
      what: getattr(c, f"{kind}_{what}_probability")
      for what in ("actions", "observations")
    }
    if any(probabilities.values()):
      for what, stages in (("actions", actions), ("observations", sensors)):
        steps = getattr(c, f"{kind}_{what}_steps")
        stages.append(stage(probabilities[what], steps, rng))
  if c.repetition_probability:
    actions.append(
      Repetition(c.repetition_probability, c.repetition_steps, rng)
    )

  def with_constraints(inside: dm_env.Environment) -> dm_env.Environment:
    if constraints is None or not (c.safety and c.safety_observed):
      return inside
    read = constraints
    spec = specs.Array(read().shape, bool, name="constraints")
    return ExtraObservations(
      inside, {"constraints": spec}, lambda: {"constraints": read()}
    )

  if sensors:
    environment = Observations(environment, *sensors, carry_over=exact)
  if not exact:
    environment = with_constraints(environment)
  if c.observation_delay:
    environment = Observations(
      environment, Delay(c.observation_delay), carry_over=exact
    )
  if exact:
    environment = with_constraints(environment)
  if c.random_observations:
    names = [f"dummy-{i}" for i in range(c.random_observations)]
    environment = ExtraObservations(
      environment,
      {name: specs.Array((), np.float64, name=name) for name in names},
      lambda: dict(zip(names, rng.normal(size=len(names)), strict=True)),
    )
  if objectives is not None and c.multi_objective_observed:
    observed = objectives
    environment = ExtraObservations(
      environment,
      {"multiobj": specs.Array((2,), np.float64, name="multiobj")},
      lambda: {"multiobj": observed()},
    )
  if c.reward_delay:
    environment = Rewards(
      environment, Delay(c.reward_delay), carry_over=exact
    )
  if actions:
    environment = Actions(environment, *actions, carry_over=exact)
  return environment
