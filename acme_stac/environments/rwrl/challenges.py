"""The options of Real-World RL: everything that can be wrong with the world."""

import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping
from typing import Any

import yaml

from acme_stac import checks
from acme_stac.environments.rwrl.schedule import SCHEDULERS

LEVELS = ("none", "easy", "medium", "hard")
# A delay is at most the length of an episode.
_DELAY = checks.IntegerRange(0, 1000)
_STEPS = checks.IntegerRange(1)
_SHARE = checks.NumberRange(0.0, 1.0)
_NOT_NEGATIVE = checks.NumberRange(0.0)


@functools.cache
def suite_data() -> Mapping[str, Any]:
  """Returns the suite's numbers, data/rwrl_challenges.yaml."""
  package = importlib.resources.files("acme_stac.environments")
  text = (package / "data" / "rwrl_challenges.yaml").read_text()
  return yaml.safe_load(text)


def _field(
  default: Any, allowed: checks.IntegerRange | checks.NumberRange
) -> Any:
  return dataclasses.field(default=default, metadata={"allowed": allowed})


@dataclasses.dataclass(frozen=True)
class Challenges:
  """Everything that can be wrong with the world; by default nothing is."""

  # Control steps between an action and its effect, and by which observations
  # and rewards are late.
  action_delay: int = _field(0, _DELAY)
  observation_delay: int = _field(0, _DELAY)
  reward_delay: int = _field(0, _DELAY)

  # Standard deviation of Gaussian noise, in the units of actions and
  # observations. Noisy actions are clipped to their bounds.
  action_noise: float = _field(0.0, _NOT_NEGATIVE)
  observation_noise: float = _field(0.0, _NOT_NEGATIVE)

  # Probability, at each step and independently for each component, that the
  # component becomes 0, and for how many steps.
  dropped_actions_probability: float = _field(0.0, _SHARE)
  dropped_actions_steps: int = _field(1, _STEPS)
  dropped_observations_probability: float = _field(0.0, _SHARE)
  dropped_observations_steps: int = _field(1, _STEPS)

  # The same for keeping the value of the step before.
  stuck_actions_probability: float = _field(0.0, _SHARE)
  stuck_actions_steps: int = _field(1, _STEPS)
  stuck_observations_probability: float = _field(0.0, _SHARE)
  stuck_observations_steps: int = _field(1, _STEPS)

  # Probability that an action is repeated, and for how many steps it is
  # applied, the first included.
  repetition_probability: float = _field(0.0, _SHARE)
  repetition_steps: int = _field(1, _STEPS)

  # Number of extra observations of standard Gaussian noise.
  random_observations: int = _field(0, checks.IntegerRange(0, 10_000))

  # Name of the perturbed physical parameter, or "none"; how its value moves,
  # one of `SCHEDULERS`; and the number of episodes between new values.
  perturbation: str = "none"
  perturbation_scheduler: str = "constant"
  perturbation_period: int = _field(1, _STEPS)
  # Where the value starts, its range, and the standard deviation of a step of
  # the scheduler; None for the domain's own.
  perturbation_start: float | None = _field(None, _NOT_NEGATIVE)
  perturbation_min: float | None = _field(None, _NOT_NEGATIVE)
  perturbation_max: float | None = _field(None, _NOT_NEGATIVE)
  perturbation_std: float | None = _field(None, _NOT_NEGATIVE)

  # Whether safety constraints are evaluated; how loose they are, from 0, which
  # hardly any state satisfies, to 1; whether observations get the entry
  # `constraints`; and which of the task's constraints, () for all but
  # "action_rate".
  safety: bool = False
  safety_coefficient: float = _field(1.0, _SHARE)
  safety_observed: bool = True
  safety_constraints: tuple[str, ...] = ()

  # Weight α of the share s of satisfied constraints in the reward,
  # (1 − α) r + α s; and whether observations get the entry `multiobj`, [r, s].
  multi_objective_alpha: float = _field(0.0, _SHARE)
  multi_objective_observed: bool = False

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if "allowed" in field.metadata and value is not field.default:
        field.metadata["allowed"].check(field.name, value)
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
    domains = suite_data()["domains"]
    if domain not in domains:
      raise ValueError(checks.unknown("domain", domain, domains))
    if level not in LEVELS:
      raise ValueError(checks.unknown("level", level, LEVELS))
    if level == "none":
      return cls(**changes)
    perturbed = domains[domain]["perturbation"]
    fields = {**suite_data()["levels"][level], "perturbation": perturbed}
    if changes.get("perturbation", perturbed) == perturbed:
      for name, value in domains[domain]["levels"][level].items():
        fields[f"perturbation_{name}"] = value
    elif changes["perturbation"] == "none":
      del fields["perturbation_scheduler"]
    return cls(**{**fields, **changes})
