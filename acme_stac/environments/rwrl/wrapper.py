"""Puts challenges around a dm_env environment.

In this order:

- action: delay, noise, clip to the bounds, dropped, stuck, repeated;
- observation: noise, dropped, stuck, plus constraints, delay, plus random
  entries, plus objectives;
- reward: delay.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_env
import numpy as np
from dm_env import specs

from acme_stac.environments import wrappers
from acme_stac.environments.rwrl import stages
from acme_stac.environments.rwrl.challenges import Challenges
from acme_stac.environments.rwrl.faults import CORRECTED, Faults

# Name of an observation that is one array.
_ARRAY = "observation"


class _Entries(NamedTuple):
  """Entries that are added to every observation.

  Attributes:
    specs: by name.
    read: returns their values by name.
  """

  specs: Mapping[str, specs.Array]
  read: Callable[[], Mapping[str, Any]]


class ChallengedEnvironment(wrappers.Wrapper):
  """Adds delays, noise, repetition and further entries to an environment.

  Leaves the perturbation to the environment itself.
  """

  def __init__(
    self,
    environment: dm_env.Environment,
    challenges: Challenges,
    rng: stages.Rng,
    *,
    constraints: Callable[[], np.ndarray] | None = None,
    objectives: Callable[[], np.ndarray] | None = None,
    faults: Faults = CORRECTED,
  ):
    """Wraps an environment.

    Args:
      environment: its observations must be an array or a dict of arrays.
      challenges: the challenges.
      rng: draws the noise.
      constraints: returns the state of the constraints, a bool vector, for
        `safety_observed`.
      objectives: returns the objectives, [2], for `multi_objective_observed`.
      faults: of the published suite, to reproduce.

    Raises:
      ValueError: for noise on actions or observations that are not
        floating-point, and for further entries of an observation that is
        neither a dict nor a vector.
    """
    super().__init__(environment)
    action_spec = environment.action_spec()
    spec = environment.observation_spec()
    self._is_dict = isinstance(spec, Mapping)
    self._specs = dict(spec) if self._is_dict else {_ARRAY: spec}
    self._action_dtype = action_spec.dtype
    bounds = None
    if isinstance(action_spec, specs.BoundedArray):
      bounds = action_spec.minimum, action_spec.maximum
    self._actions = [
      *_delays(challenges.action_delay),
      *_noise(challenges, "action", rng, bounds),
    ]
    if p := challenges.repetition_probability:
      steps = challenges.repetition_steps
      self._actions.append(stages.Repetition(p, steps, rng))
    self._rewards = _delays(challenges.reward_delay)
    self._sensors = _noise(challenges, "observation", rng)
    self._delays = _delays(challenges.observation_delay)
    self._stages: list[stages.Stage] = [
      *self._actions, *self._rewards, *self._sensors, *self._delays
    ]
    noisy = dict(self._specs) if self._sensors else {}
    if challenges.action_noise:
      noisy["action"] = action_spec
    for name, entry in noisy.items():
      if not np.issubdtype(entry.dtype, np.floating):
        raise ValueError(
          f"Noise needs floating-point numbers, but {name!r} is"
          f" {np.dtype(entry.dtype).name}. Convert it first."
        )
    sizes = [int(np.prod(entry.shape)) for entry in self._specs.values()]
    self._ends = np.cumsum(sizes)[:-1]
    # Before and after the delay.
    self._early: list[_Entries] = []
    self._late: list[_Entries] = []
    if constraints and challenges.safety and challenges.safety_observed:
      where = self._late if faults.constraints_skip_delay else self._early
      spec = specs.Array(constraints().shape, bool, name="constraints")
      where.append(_entry(spec, constraints))
    if challenges.random_observations:
      self._late.append(_random_entries(challenges.random_observations, rng))
    if objectives and challenges.multi_objective_observed:
      spec = specs.Array((2,), np.float64, name="multiobj")
      self._late.append(_entry(spec, objectives))
    self._observation_spec = self._challenged_spec()
    self._carries_over = faults.episodes_overlap
    self._needs_reset = True

  def _challenged_spec(self) -> Any:
    entries = dict(self._specs)
    if self._sensors:  # Noise leaves all bounds.
      entries = {
        name: specs.Array(spec.shape, spec.dtype, spec.name)
        for name, spec in entries.items()
      }
    for extra in (*self._early, *self._late):
      entries.update(extra.specs)
    if self._is_dict:
      return entries
    spec = entries[_ARRAY]
    if len(entries) == 1:
      return spec
    if len(spec.shape) != 1:
      raise ValueError(
        "Entries can be added to a dict or to a vector, but observations have"
        f" shape {spec.shape}."
      )
    size = sum(int(np.prod(entry.shape)) for entry in entries.values())
    return specs.Array((size,), spec.dtype, name=spec.name)

  def reset(self) -> dm_env.TimeStep:
    self._needs_reset = False
    if not self._carries_over:
      for stage in self._stages:
        stage.reset()
    step = self._environment.reset()
    return step._replace(observation=self._observe(step.observation))

  def step(self, action: Any) -> dm_env.TimeStep:
    if self._needs_reset:
      return self.reset()
    if self._actions:
      # A copy: stages keep actions, and the caller may reuse the array.
      action = np.array(action, self._action_dtype)
      for stage in self._actions:
        action = stage(action)
      action = np.asarray(action, self._action_dtype)
    step = self._environment.step(action)
    self._needs_reset = step.last()
    reward = step.reward
    for stage in self._rewards:
      reward = stage(reward)
    return step._replace(
      reward=reward, observation=self._observe(step.observation)
    )

  def _observe(self, observation: Any) -> Any:
    entries = dict(observation) if self._is_dict else {_ARRAY: observation}
    if self._sensors:
      entries = self._sense(entries)
    for extra in self._early:
      entries.update(extra.read())
    for stage in self._delays:
      # Copies: of what may change later, and of what may be returned again.
      entries = _copy(stage(_copy(entries)))
    for extra in self._late:
      entries.update(extra.read())
    if self._is_dict:
      return entries
    if len(entries) == 1:
      return entries[_ARRAY]
    vector = np.concatenate([np.ravel(value) for value in entries.values()])
    return vector.astype(self._specs[_ARRAY].dtype)

  def _sense(self, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Applies the stages to the vector of all entries, in the spec's order."""
    vector = np.concatenate([np.ravel(entries[name]) for name in self._specs])
    for stage in self._sensors:
      vector = stage(vector)
    parts = np.split(vector, self._ends)
    return {
      name: part.reshape(spec.shape).astype(spec.dtype)
      for (name, spec), part in zip(self._specs.items(), parts, strict=True)
    }

  def observation_spec(self) -> Any:
    return self._observation_spec


def _delays(steps: int) -> list[stages.Stage]:
  return [stages.Delay(steps)] if steps else []


def _noise(
  challenges: Challenges, what: str, rng: stages.Rng, bounds: Any = None
) -> list[stages.Stage]:
  """Returns the noise, drops and sticking of "action" or "observation".

  If only one of the two has a challenge, the other draws random numbers too, as
  in the published suite.
  """
  made: list[stages.Stage] = []
  if challenges.action_noise or challenges.observation_noise:
    std = getattr(challenges, f"{what}_noise")
    made.append(stages.GaussianNoise(std, rng, bounds))
  for kind, stage in (("dropped", stages.Dropped), ("stuck", stages.Stuck)):
    probability = {
      each: getattr(challenges, f"{kind}_{each}s_probability")
      for each in ("action", "observation")
    }
    if any(probability.values()):
      steps = getattr(challenges, f"{kind}_{what}s_steps")
      made.append(stage(probability[what], steps, rng))
  return made


def _entry(spec: specs.Array, read: Callable[[], np.ndarray]) -> _Entries:
  return _Entries({spec.name: spec}, lambda: {spec.name: read()})


def _random_entries(number: int, rng: stages.Rng) -> _Entries:
  names = [f"dummy-{i}" for i in range(number)]
  return _Entries(
    {name: specs.Array((), np.float64, name=name) for name in names},
    lambda: dict(zip(names, rng.normal(size=number), strict=True)),
  )


def _copy(entries: Mapping[str, Any]) -> dict[str, Any]:
  return {name: np.array(value) for name, value in entries.items()}
