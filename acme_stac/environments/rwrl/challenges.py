"""The options of Real-World RL: everything that can be wrong with the world."""

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from acme_stac import checks
from acme_stac.environments.rwrl.schedule import SCHEDULERS

LEVELS = ("none", "easy", "medium", "hard")
# Limits of fields. A delay is at most the length of an episode.
_DELAY = {"minimum": 0, "maximum": 1000}
_STEPS = {"minimum": 1}
_SHARE = {"minimum": 0.0, "maximum": 1.0}
_NOT_NEGATIVE = {"minimum": 0.0}


@functools.cache
def suite_data() -> Mapping[str, Any]:
  """Returns the suite's numbers, data/rwrl_challenges.yaml."""
  package = importlib.resources.files("acme_stac.environments")
  text = (package / "data" / "rwrl_challenges.yaml").read_text()
  return yaml.safe_load(text)


def _field(default: Any, meaning: str, limits: Any = None) -> Any:
  return dataclasses.field(
    default=default, metadata={"meaning": meaning, "limits": limits or {}}
  )


@dataclasses.dataclass(frozen=True)
class Challenges:
  """Everything that can be wrong with the world; by default nothing is.

  Probabilities are those at each step and for each component independently.
  Numbers of the perturbation that are None are those of the domain.
  """

  action_delay: int = _field(
    0, "control steps between an action and its effect", _DELAY
  )
  observation_delay: int = _field(
    0, "time steps by which observations are late", _DELAY
  )
  reward_delay: int = _field(
    0, "control steps by which rewards are late", _DELAY
  )
  action_noise: float = _field(
    0.0,
    "standard deviation of Gaussian noise on actions, in their units; noisy"
    " actions are clipped to their bounds",
    _NOT_NEGATIVE,
  )
  observation_noise: float = _field(
    0.0, "standard deviation of Gaussian noise on observations", _NOT_NEGATIVE
  )
  dropped_actions_probability: float = _field(
    0.0, "probability that a component of the action becomes 0", _SHARE
  )
  dropped_actions_steps: int = _field(1, "steps that this lasts", _STEPS)
  dropped_observations_probability: float = _field(
    0.0, "probability that a component of the observation becomes 0", _SHARE
  )
  dropped_observations_steps: int = _field(1, "steps that this lasts", _STEPS)
  stuck_actions_probability: float = _field(
    0.0, "probability that a component of the action keeps its value", _SHARE
  )
  stuck_actions_steps: int = _field(1, "steps that this lasts", _STEPS)
  stuck_observations_probability: float = _field(
    0.0,
    "probability that a component of the observation keeps its value",
    _SHARE,
  )
  stuck_observations_steps: int = _field(1, "steps that this lasts", _STEPS)
  repetition_probability: float = _field(
    0.0, "probability that an action is repeated", _SHARE
  )
  repetition_steps: int = _field(
    1, "steps that a repeated action is applied, the first included", _STEPS
  )
  random_observations: int = _field(
    0,
    "extra observations of standard Gaussian noise",
    {"minimum": 0, "maximum": 10_000},
  )
  perturbation: str = _field(
    "none", 'name of the perturbed physical parameter, or "none"'
  )
  perturbation_scheduler: str = _field(
    "constant", "how its value moves, one of `SCHEDULERS`"
  )
  perturbation_period: int = _field(1, "episodes between new values", _STEPS)
  perturbation_start: float | None = _field(
    None, "value from which the scheduler starts", _NOT_NEGATIVE
  )
  perturbation_min: float | None = _field(None, "least value", _NOT_NEGATIVE)
  perturbation_max: float | None = _field(None, "largest value", _NOT_NEGATIVE)
  perturbation_std: float | None = _field(
    None, "standard deviation of a step of the scheduler", _NOT_NEGATIVE
  )
  safety: bool = _field(False, "whether safety constraints are evaluated")
  safety_coefficient: float = _field(
    1.0,
    "from 0, which hardly any state satisfies, to 1, the loosest constraints",
    _SHARE,
  )
  safety_observed: bool = _field(
    True, "whether observations get the entry `constraints`"
  )
  safety_constraints: tuple[str, ...] = _field(
    (), 'which of the task\'s constraints; () for all but "action_rate"'
  )
  multi_objective_alpha: float = _field(
    0.0,
    "weight α of the share s of satisfied constraints in the reward,"
    " (1 − α) r + α s",
    _SHARE,
  )
  multi_objective_observed: bool = _field(
    False, "whether observations get the entry `multiobj`, [r, s]"
  )

  def __post_init__(self):
    for field in dataclasses.fields(self):
      self._check(field)
    if self.perturbation_scheduler not in SCHEDULERS:
      raise ValueError(
        checks.unknown(
          "perturbation_scheduler", self.perturbation_scheduler, SCHEDULERS
        )
      )
    if self.multi_objective and not self.safety:
      raise ValueError(
        "The multi-objective reward needs the safety constraints. Set"
        " safety=True too."
      )
    if self.perturbation == "none":
      self._check_unset("perturbation_", "perturbation")
    if not self.safety:
      self._check_unset("safety_", "safety=True")

  def _check(self, field: dataclasses.Field):
    """Raises ValueError unless a field has its type and is in its range."""
    name, value = field.name, getattr(self, field.name)
    if isinstance(value, np.generic):
      value = value.item()
    if isinstance(value, list):
      value = tuple(value)
    object.__setattr__(self, name, value)
    if value is None and field.default is None:
      return
    kind = checks.plain_type(field.type)
    if kind is int:
      checks.check_integer(name, value, **field.metadata["limits"])
    elif kind is float:
      checks.check_number(name, value, **field.metadata["limits"])
    elif not isinstance(value, kind):
      raise ValueError(f"{name} must be a {kind.__name__}, got {value!r}.")

  def _check_unset(self, prefix: str, switch: str):
    """Raises ValueError if a field is set that has no effect."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name.startswith(prefix) and value != field.default:
        raise ValueError(
          f"{field.name} is {value!r}, but has no effect. Set {switch} too."
        )

  @property
  def multi_objective(self) -> bool:
    """Whether the safety constraints are a second objective."""
    return self.multi_objective_alpha > 0.0 or self.multi_objective_observed

  @classmethod
  def combined(cls, domain: str, level: str, **changes: Any) -> "Challenges":
    """Returns a combined challenge of the suite.

    Args:
      domain: "cartpole", "walker", "quadruped" or "humanoid".
      level: one of `LEVELS`.
      **changes: fields to change. A `perturbation` other than the level's takes
        its range from the domain.

    Raises:
      ValueError: for an unknown domain or level, with near matches, and for a
        field that is out of its range.
    """
    data = suite_data()
    if domain not in data["domains"]:
      raise ValueError(checks.unknown("domain", domain, data["domains"]))
    if level not in LEVELS:
      raise ValueError(checks.unknown("level", level, LEVELS))
    if level == "none":
      return cls(**changes)
    perturbed = data["domains"][domain]["perturbation"]
    fields = {**data["levels"][level], "perturbation": perturbed}
    if changes.get("perturbation", perturbed) == perturbed:
      for name, value in data["domains"][domain]["levels"][level].items():
        fields[f"perturbation_{name}"] = value
    elif changes["perturbation"] == "none":
      del fields["perturbation_scheduler"]
    return cls(**{**fields, **changes})
