"""Finds what is wrong with an environment before anything learns from it."""

import time
import traceback
from collections.abc import Mapping
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac.environments import base

_MAX_SHOWN = 10


def check(
  environment: dm_env.Environment | base.BatchedEnvironment,
  max_steps: int = 1000,
  max_seconds: float = 1.0,
  seed: int = 0,
):
  """Plays an environment at random and compares it with its specs.

  Checked are the structure, shape, dtype, bounds and finiteness of
  observations; that rewards are finite numbers within their spec and discounts
  in [0, 1]; that FIRST, MID and LAST come in dm_env's order; and that nothing
  raises. The environment is left in
  the middle of an episode: reset it, or check another of its kind.

  Args:
    environment: a dm_env environment, or a batch with one member.
    max_steps: steps to play at most.
    max_seconds: time to play at most; one step is always made.
    seed: of the actions.

  Raises:
    ValueError: with one line for everything that was found.
  """
  if isinstance(environment, base.EnvironmentOfBatch):
    # What the batch changes on the way must not hide what is wrong.
    environment = environment.batch
  if isinstance(environment, base.BatchOfEnvironments):
    environment = environment.members[0]
  elif isinstance(environment, base.BatchedEnvironment):
    environment = base.EnvironmentOfBatch(environment)
  elif not isinstance(environment, dm_env.Environment):
    raise ValueError(
      f"Only a dm_env.Environment can be checked, got {environment!r}."
    )
  check_specs(environment)
  _report(_problems(environment, max_steps, max_seconds, seed))


def check_specs(environment: dm_env.Environment):
  """Raises ValueError if specs cannot be those of an environment here."""
  observation_spec = _call(environment, "observation_spec")
  action_spec = _call(environment, "action_spec")
  problems = _spec_problems(observation_spec, action_spec)
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


def _problems(
  environment: dm_env.Environment,
  max_steps: int,
  max_seconds: float,
  seed: int,
) -> list[str]:
  """Returns what is wrong, each kind of problem once."""
  found: dict[str, None] = {}
  observation_spec = environment.observation_spec()
  action_spec = environment.action_spec()
  reward_spec = _call(environment, "reward_spec")

  rng = np.random.default_rng(seed)
  deadline = time.monotonic() + max_seconds
  step = _call(environment, "reset")
  if not isinstance(step, dm_env.TimeStep):
    return [f"reset() must return a dm_env.TimeStep, got {_brief(step)}."]
  if step.step_type != dm_env.StepType.FIRST:
    found[f"reset() must return FIRST, got {step.step_type!r}."] = None
  ended = False
  for number in range(max_steps):
    found |= dict.fromkeys(
      _observation_problems(observation_spec, step.observation)
    )
    found |= dict.fromkeys(
      _transition_problems(step, reward_spec, expect_first=ended)
    )
    if number and time.monotonic() > deadline:
      break
    ended = step.step_type == dm_env.StepType.LAST
    step = _call(environment, "step", random_action(action_spec, rng))
    if not isinstance(step, dm_env.TimeStep):
      found[f"step() must return a dm_env.TimeStep, got {_brief(step)}."] = None
      break
    if not ended and step.step_type == dm_env.StepType.FIRST:
      found["step() returned FIRST although the step before was no LAST."] = (
        None
      )
  return list(found)


def _call(environment: dm_env.Environment, method: str, *arguments: Any) -> Any:
  """Calls a method; a ValueError says which one it was that raised."""
  try:
    return getattr(environment, method)(*arguments)
  except Exception as error:  # Whatever a user's environment may raise.
    place = traceback.extract_tb(error.__traceback__)[-1]
    raise ValueError(
      f"The environment's {method}() raised {type(error).__name__}: {error}"
      f" ({place.filename}, line {place.lineno})."
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
  named = _leaves("observation_spec()", observation_spec)
  if not problems:
    named.append(("action_spec()", action_spec))
  for name, spec in named:
    if not isinstance(spec, specs.Array):
      problems.append(f"{name} must be a dm_env.specs.Array, got {spec!r}.")
      continue
    if spec.dtype.kind not in "biuf":
      problems.append(f"{name} must be of numbers, got {spec.dtype}.")
    if 0 in spec.shape:
      problems.append(f"{name} has no elements: its shape is {spec.shape}.")
    if isinstance(spec, specs.BoundedArray):
      if np.any(np.isnan([np.min(spec.minimum), np.max(spec.maximum)])):
        problems.append(f"{name} has a nan among its bounds.")
      elif np.any(np.asarray(spec.minimum) > spec.maximum):
        problems.append(f"{name} has bounds with minimum > maximum.")
  return problems


def _transition_problems(
  step: dm_env.TimeStep, reward_spec: Any, expect_first: bool
) -> list[str]:
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
  if expect_first:
    problems.append(
      f"step() after LAST must start an episode, but returned"
      f" {dm_env.StepType(step.step_type).name}."
    )
  if not _is_number(step.reward):
    problems.append(f"reward must be one finite number, got {step.reward!r}.")
  elif isinstance(reward_spec, specs.BoundedArray) and not (
    reward_spec.minimum <= float(step.reward) <= reward_spec.maximum
  ):
    problems.append(
      f"reward leaves the bounds of its spec, [{reward_spec.minimum},"
      f" {reward_spec.maximum}]."
    )
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


def _observation_problems(spec: Any, observation: Any) -> list[str]:
  expected = dict(_leaves("observation", spec))
  got = dict(_leaves("observation", observation))
  if expected.keys() != got.keys():
    return [
      f"the observation's parts must be {sorted(expected)}, got {sorted(got)}"
      f" (of type {type(observation).__name__})."
    ]
  problems = []
  for name, leaf in expected.items():
    value = np.asarray(got[name])
    if value.shape != leaf.shape:
      problems.append(
        f"{name} must have shape {leaf.shape}, got {value.shape}."
      )
      continue
    if value.dtype != leaf.dtype:
      problems.append(f"{name} must be {leaf.dtype}, got {value.dtype}.")
    if value.dtype.kind not in "biuf":
      continue
    if not np.all(np.isfinite(value)):
      problems.append(f"{name} has a nan or infinity.")
    elif isinstance(leaf, specs.BoundedArray) and (
      np.any(value < leaf.minimum) or np.any(value > leaf.maximum)
    ):
      problems.append(
        f"{name} leaves the bounds of its spec, [{np.min(leaf.minimum)},"
        f" {np.max(leaf.maximum)}]."
      )
  return problems


def _leaves(name: str, nest: Any) -> list[tuple[str, Any]]:
  if isinstance(nest, Mapping):
    # Not a tree of JAX: dm_control's are dicts of another kind.
    nest = dict(nest)
  paths, _ = jax.tree_util.tree_flatten_with_path(nest)
  return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]


def random_action(spec: specs.Array, rng: np.random.Generator) -> Any:
  """Returns an action that a spec allows, uniform where it has bounds."""
  if isinstance(spec, specs.DiscreteArray):
    return rng.integers(spec.num_values, dtype=spec.dtype)
  if isinstance(spec, specs.BoundedArray):
    # Where there are no bounds, no number is a wrong one.
    low = np.maximum(spec.minimum, -1e3)
    high = np.minimum(spec.maximum, 1e3)
    return np.asarray(rng.uniform(low, high, spec.shape)).astype(spec.dtype)
  return np.zeros(spec.shape, spec.dtype)
