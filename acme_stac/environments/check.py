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


class _CannotGoOnError(Exception):
  """What was found leaves nothing that could be played."""


def check(
  environment: dm_env.Environment | base.BatchedEnvironment,
  max_steps: int = 1000,
  max_seconds: float = 1.0,
  seed: int = 0,
):
  """Plays an environment at random and compares it with its specs.

  Checked are the structure, shape, dtype and finiteness of observations; that
  rewards are finite numbers and discounts in [0, 1]; that FIRST, MID and LAST
  come in dm_env's order; and that nothing raises. A member whose episode ended
  is reset. The members of a batch are played together, as in a run. The
  environment is left in the middle of an episode: reset it, or check another of
  its kind.

  Warns once of observations and rewards that leave the bounds of their specs:
  nothing here depends on those.

  Args:
    environment: a dm_env environment, or a batch.
    max_steps: steps to play at most.
    max_seconds: time to play at most; one step is always made.
    seed: of the actions.

  Raises:
    ValueError: with one line for everything that was found.
  """
  if isinstance(environment, batches.EnvironmentOfBatch):
    # What the bridge changes on the way must not hide what is wrong.
    environment = environment.batch
  if isinstance(environment, dm_env.Environment):
    check_specs(environment)
    environment = batches.BatchOfEnvironments([environment])
  elif isinstance(environment, base.BatchedEnvironment):
    check_specs(environment)
  else:
    raise ValueError(
      f"Only a dm_env.Environment can be checked, got {environment!r}."
    )
  findings = _Findings()
  _play(environment, findings, max_steps, max_seconds, seed)
  _report(list(findings.problems))
  if findings.warnings:
    warnings.warn(
      "The environment leaves the bounds of its specs; a run goes on with"
      " that:\n  "
      + "\n  ".join(findings.warnings.values()),
      stacklevel=2,
    )


def check_specs(environment: dm_env.Environment | base.BatchedEnvironment):
  """Raises ValueError if specs cannot be those of an environment here."""
  observation_spec = _call(environment, "observation_spec")
  action_spec = _call(environment, "action_spec")
  problems = _spec_problems(observation_spec, action_spec)
  if not problems and isinstance(environment, base.BatchedEnvironment):
    problems = [
      f"observation_spec() of a batch must be made of dicts, got a"
      f" {type(leaf).__name__}."
      for leaf in jax.tree_util.tree_leaves(observation_spec)
      if not isinstance(leaf, specs.Array)
    ]
  if not problems and (
    _call(environment, "observation_spec") != observation_spec
  ):
    problems = ["observation_spec() is another one at every call."]
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
    problems: what ends a run.
    warnings: what does not, by the part of the time step.
  """

  def __init__(self):
    self.problems: dict[str, None] = {}
    self.warnings: dict[str, str] = {}

  def add(self, *problems: str):
    """Adds problems."""
    self.problems |= dict.fromkeys(problems)

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
    self.add(*problems, *_transition_problems(step))
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
  """Looks at the time steps of a member before its batch changes them."""

  def __init__(self, environment: dm_env.Environment, findings: _Findings):
    super().__init__(environment)
    self._findings = findings
    self._observation_spec = nests.plain_nest(environment.observation_spec())
    self._reward_spec = _call(environment, "reward_spec")

  def reset(self) -> dm_env.TimeStep:
    step = self._look("reset", _call(self._environment, "reset"))
    if step.step_type != dm_env.StepType.FIRST:
      self._findings.add(f"reset() must return FIRST, got {step.step_type!r}.")
    return step

  def step(self, action: Any) -> dm_env.TimeStep:
    step = self._look("step", _call(self._environment, "step", action))
    if step.step_type == dm_env.StepType.FIRST:
      self._findings.add(
        "step() returned FIRST although the step before was no LAST."
      )
    return step

  def _look(self, method: str, step: Any) -> dm_env.TimeStep:
    if not isinstance(step, dm_env.TimeStep):
      self._findings.add(
        f"{method}() must return a dm_env.TimeStep, got {_brief(step)}."
      )
      raise _CannotGoOnError
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
  # By the members, before the batch hides what they return.
  looked_at = isinstance(batch, batches.BatchOfEnvironments)
  if isinstance(batch, batches.BatchOfEnvironments):
    batch = batches.BatchOfEnvironments(
      [_Member(member, findings) for member in batch.members]
    )
  watched = guard.GuardedEnvironment(batch)
  observation_spec = watched.observation_spec()
  action_spec, reward_spec = batch.action_spec(), batch.reward_spec()
  rng = np.random.default_rng(seed)
  deadline = time.monotonic() + max_seconds
  def look(timestep: dm_env.TimeStep):
    if not looked_at:
      for member in range(batch.num_environments):
        findings.add_step(
          _of_member(timestep, member), observation_spec, reward_spec
        )

  try:
    look(watched.reset())
    for _ in range(max_steps):
      actions = [
        random_action(action_spec, rng) for _ in range(batch.num_environments)
      ]
      look(watched.step(np.stack(actions)))
      if time.monotonic() > deadline:
        break
  except guard.EnvironmentFailedError as error:
    # A member says it in its own terms.
    if isinstance(error.__cause__, _RaisedError):
      findings.add(str(error.__cause__))
    elif not findings.problems:
      findings.add(str(error))


def _of_member(timestep: dm_env.TimeStep, member: int) -> dm_env.TimeStep:
  """Returns the time step of one member, as dm_env has it."""
  step = jax.tree_util.tree_map(lambda x: x[member], timestep)
  if step.step_type == dm_env.StepType.FIRST:
    return dm_env.restart(step.observation)
  return step


class _RaisedError(ValueError):
  """A method of an environment raised."""


def _call(environment: Any, method: str, *arguments: Any) -> Any:
  """Calls a method; a ValueError says which one it was that raised."""
  try:
    return getattr(environment, method)(*arguments)
  except Exception as error:  # Whatever a user's environment may raise.
    raise _RaisedError(
      f"The environment's {method}() raised {errors.describe_error(error)}."
    ) from error


def _brief(value: Any) -> str:
  """Returns a description of what should have been a time step."""
  hint = ""
  if isinstance(value, tuple):
    hint = ", as Gymnasium's do; gymnasium:<id> takes those"
  return f"a {type(value).__name__}{hint}"


def _spec_problems(observation_spec: Any, action_spec: Any) -> list[str]:
  """Returns what is wrong with the specs themselves."""
  problems = []
  if not isinstance(action_spec, specs.Array):
    problems.append(
      f"action_spec() must be a dm_env.specs.Array, got {action_spec!r}."
    )
  named = nests.named_leaves("observation_spec()", observation_spec)
  if not any(math.prod(getattr(spec, "shape", ())) for _, spec in named):
    problems.append(
      f"observation_spec() has no elements: it is {observation_spec!r}."
    )
  if isinstance(action_spec, specs.Array):
    named.append(("action_spec()", action_spec))
    if 0 in action_spec.shape:
      problems.append(
        f"action_spec() has no elements: its shape is {action_spec.shape}."
      )
  for name, spec in named:
    if not isinstance(spec, specs.Array):
      problems.append(f"{name} must be a dm_env.specs.Array, got {spec!r}.")
      continue
    if spec.dtype.kind not in "biuf":
      problems.append(f"{name} must be of numbers, got {spec.dtype}.")
    if isinstance(spec, specs.BoundedArray):
      if np.any(np.isnan(spec.minimum) | np.isnan(spec.maximum)):
        problems.append(f"{name} has a nan among its bounds.")
      elif np.any(np.asarray(spec.minimum) > spec.maximum):
        problems.append(f"{name} has bounds with minimum > maximum.")
  return problems


def _transition_problems(step: dm_env.TimeStep) -> list[str]:
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
  """Returns an action that a spec allows, uniform where it has bounds."""
  if isinstance(spec, specs.DiscreteArray):
    return spec.dtype.type(rng.integers(spec.num_values))
  if isinstance(spec, specs.BoundedArray):
    # Where there are no bounds, no number is a wrong one.
    low = np.maximum(spec.minimum, -1e3)
    high = np.minimum(spec.maximum, 1e3)
    return np.asarray(rng.uniform(low, high, spec.shape)).astype(spec.dtype)
  return np.zeros(spec.shape, spec.dtype)
