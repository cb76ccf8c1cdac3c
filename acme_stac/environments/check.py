"""Finds what is wrong with an environment before anything learns from it."""

import math
import time
import warnings
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac.environments import base, batches, errors, guard, nests, wrappers

_MAX_SHOWN = 10


class _MemberError(ValueError):
  """A member of a batch raised, or returned no time step."""


def check(
  environment: dm_env.Environment | base.BatchedEnvironment,
  max_steps: int = 1000,
  max_seconds: float = 1.0,
  seed: int = 0,
):
  """Plays an environment at random and compares it with its specs.

  Checks the structure, shape, dtype and finiteness of observations; that
  rewards are finite numbers and discounts in [0, 1]; that FIRST, MID and LAST
  come in dm_env's order; and that nothing raises. Plays the members of a batch
  together, as a run does. Leaves the environment in the middle of an episode:
  reset it, or check another of its kind.

  Warns, once, if observations or rewards leave the bounds of their specs.

  Args:
    environment: a dm_env environment, or a batch.
    max_steps: most steps to play.
    max_seconds: longest time to play; one step is always made.
    seed: of the actions.

  Raises:
    ValueError: if anything is wrong, with a line for each problem.
  """
  if isinstance(environment, batches.EnvironmentOfBatch):
    # The bridge must not hide what is wrong.
    environment = environment.batch
  if not isinstance(environment, dm_env.Environment | base.BatchedEnvironment):
    raise ValueError(
      f"Only a dm_env.Environment can be checked, got {environment!r}."
    )
  check_specs(environment)
  findings = _Findings()
  if isinstance(environment, dm_env.Environment):
    environment = batches.BatchOfEnvironments([environment])
  _play(environment, findings, max_steps, max_seconds, seed)
  _report(list(findings.problems))
  if findings.warnings:
    warnings.warn(
      "The environment leaves the bounds of its specs, which does not stop a"
      " run:\n  "
      + "\n  ".join(findings.warnings.values()),
      stacklevel=2,
    )


def check_specs(environment: dm_env.Environment | base.BatchedEnvironment):
  """Raises ValueError unless the specs can be used here."""
  observation_spec = _call(environment, "observation_spec")
  action_spec = _call(environment, "action_spec")
  problems = []
  named = nests.named_leaves("observation_spec()", observation_spec)
  if not any(math.prod(getattr(spec, "shape", ())) for _, spec in named):
    problems.append(
      f"observation_spec() has no elements: it is {observation_spec!r}."
    )
  if 0 in getattr(action_spec, "shape", ()):
    problems.append(f"action_spec() has no elements: it is {action_spec!r}.")
  for name, spec in [*named, ("action_spec()", action_spec)]:
    if not isinstance(spec, specs.Array):
      problems.append(f"{name} must be a dm_env.specs.Array, got {spec!r}.")
      continue
    if spec.dtype.kind not in "biuf":
      problems.append(f"{name} must be of numbers, got {spec.dtype}.")
    if isinstance(spec, specs.BoundedArray) and not np.all(
      np.asarray(spec.minimum) <= spec.maximum
    ):
      problems.append(f"{name} has a nan or minimum > maximum in its bounds.")
  _report(problems)


def _report(problems: list[str]):
  """Raises ValueError if there are problems."""
  if problems:
    shown = problems[:_MAX_SHOWN]
    if len(problems) > len(shown):
      shown.append(f"and {len(problems) - len(shown)} more")
    raise ValueError(
      "The environment is not what its specs say:\n  " + "\n  ".join(shown)
    )


class _Findings:
  """What was found, each kind once, in the order of finding.

  Attributes:
    problems: what stops a run; a dict, as sets have no order.
    warnings: what does not stop it, by the part of the time step.
  """

  def __init__(self):
    self.problems: dict[str, None] = {}
    self.warnings: dict[str, str] = {}

  def add_step(
    self, step: dm_env.TimeStep, observation_spec: Any, reward_spec: Any
  ):
    """Compares the time step of one member with its specs."""
    parts, problems = nests.observation_parts(
      observation_spec, step.observation
    )
    for name, spec, value in parts:
      if value.dtype.kind == "f" and not np.all(np.isfinite(value)):
        problems.append(f"{name} has a nan or infinity.")
      else:
        self._add_bounds(name, spec, value)
    problems += _transition_problems(step)
    self.problems |= dict.fromkeys(problems)
    if step.step_type != dm_env.StepType.FIRST and _is_number(step.reward):
      self._add_bounds("reward", reward_spec, np.asarray(step.reward))

  def _add_bounds(self, name: str, spec: Any, value: np.ndarray):
    if (
      name in self.warnings
      or not isinstance(spec, specs.BoundedArray)
      or np.all((spec.minimum <= value) & (value <= spec.maximum))
    ):
      return
    self.warnings[name] = (
      f"{name} leaves the bounds of its spec, [{np.min(spec.minimum)},"
      f" {np.max(spec.maximum)}]: it was between {float(np.min(value)):.6g}"
      f" and {float(np.max(value)):.6g}."
    )


class _Member(wrappers.Wrapper):
  """Compares a member's time steps with its specs before its batch sees them.

  The batch gives missing rewards a value and drops further parts of an
  observation.
  """

  def __init__(self, environment: dm_env.Environment, findings: _Findings):
    super().__init__(environment)
    self._findings = findings
    self._observation_spec = nests.plain_nest(environment.observation_spec())
    self._reward_spec = _call(environment, "reward_spec")

  def reset(self) -> dm_env.TimeStep:
    return self._compare("reset")

  def step(self, action: Any) -> dm_env.TimeStep:
    return self._compare("step", action)

  def _compare(self, method: str, *arguments: Any) -> dm_env.TimeStep:
    step = _call(self._environment, method, *arguments)
    if not isinstance(step, dm_env.TimeStep):
      hint = ""
      if isinstance(step, tuple):
        hint = ", as Gymnasium's do; gymnasium:<id> takes those"
      raise _MemberError(
        f"{method}() must return a dm_env.TimeStep, got a"
        f" {type(step).__name__}{hint}."
      )
    self._findings.add_step(step, self._observation_spec, self._reward_spec)
    return step


def _play(
  batch: base.BatchedEnvironment,
  findings: _Findings,
  max_steps: int,
  max_seconds: float,
  seed: int,
):
  """Plays a batch at random and adds what is found."""
  steps_itself = not isinstance(batch, batches.BatchOfEnvironments)
  if isinstance(batch, batches.BatchOfEnvironments):
    batch = batches.BatchOfEnvironments(
      [_Member(member, findings) for member in batch.members]
    )
  guarded = guard.GuardedEnvironment(batch)
  observation_spec = guarded.observation_spec()
  action_spec, reward_spec = batch.action_spec(), batch.reward_spec()
  rng = np.random.default_rng(seed)
  deadline = time.monotonic() + max_seconds

  def compare(timestep: dm_env.TimeStep):
    for member in range(batch.num_environments if steps_itself else 0):
      step = jax.tree_util.tree_map(lambda x, i=member: x[i], timestep)
      if step.step_type == dm_env.StepType.FIRST:
        step = dm_env.restart(step.observation)
      findings.add_step(step, observation_spec, reward_spec)

  try:
    compare(guarded.reset())
    for _ in range(max_steps):
      actions = [
        random_action(action_spec, rng) for _ in range(batch.num_environments)
      ]
      compare(guarded.step(np.stack(actions)))
      if time.monotonic() > deadline:
        break
  except guard.EnvironmentFailedError as error:
    if isinstance(error.__cause__, _MemberError):
      findings.problems[str(error.__cause__)] = None
    elif not findings.problems:
      findings.problems[str(error)] = None


def _call(environment: Any, method: str, *arguments: Any) -> Any:
  """Calls a method; a _MemberError names the one that raised."""
  try:
    return getattr(environment, method)(*arguments)
  except Exception as error:  # Whatever a user's environment may raise.
    raise _MemberError(
      f"The environment's {method}() raised {errors.describe_error(error)}."
    ) from error


def _transition_problems(step: dm_env.TimeStep) -> list[str]:
  """Returns what is wrong with a step type, reward and discount."""
  if step.step_type not in tuple(dm_env.StepType):
    return [f"step_type must be a dm_env.StepType, got {step.step_type!r}."]
  if step.step_type == dm_env.StepType.FIRST:
    if step.reward is None and step.discount is None:
      return []
    return [
      "the reward and the discount of a FIRST step must be None: they belong to"
      " the step before."
    ]
  problems = []
  if not _is_number(step.reward):
    problems.append(f"reward must be one finite number, got {step.reward!r}.")
  if not _is_number(step.discount) or not 0 <= float(step.discount) <= 1:
    problems.append(
      "discount must be one number in [0, 1] (0 at a terminal state, 1 where a"
      f" limit ends an episode), got {step.discount!r}."
    )
  return problems


def _is_number(value: Any) -> bool:
  return (
    not isinstance(value, str)
    and np.ndim(value) == 0
    and np.asarray(value).dtype.kind in "biuf"
    and bool(np.isfinite(value))
  )


def random_action(spec: specs.Array, rng: np.random.Generator) -> Any:
  """Returns an action that a spec allows, uniform if it has bounds."""
  if isinstance(spec, specs.DiscreteArray):
    return spec.dtype.type(rng.integers(spec.num_values))
  if isinstance(spec, specs.BoundedArray):
    # Without bounds, every number is allowed.
    low = np.maximum(spec.minimum, -1e3)
    high = np.minimum(spec.maximum, 1e3)
    return np.asarray(rng.uniform(low, high, spec.shape)).astype(spec.dtype)
  return np.zeros(spec.shape, spec.dtype)
