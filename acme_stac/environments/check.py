"""Finds what is wrong with an environment before anything learns from it."""

import time
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
  observations; that rewards are finite numbers and discounts in [0, 1]; and
  that FIRST, MID and LAST come in dm_env's order. The environment is left in
  the middle of an episode: reset it, or check another of its kind.

  Args:
    environment: a dm_env environment, or a batch with one member.
    max_steps: steps to play at most.
    max_seconds: time to play at most; one step is always made.
    seed: of the actions.

  Raises:
    ValueError: with one line for everything that was found.
  """
  if isinstance(environment, base.BatchOfEnvironments):
    environment = environment.members[0]
  elif isinstance(environment, base.BatchedEnvironment):
    environment = base.EnvironmentOfBatch(environment)
  problems = _problems(environment, max_steps, max_seconds, seed)
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
  for name, spec in _leaves("observation_spec()", observation_spec):
    if not isinstance(spec, specs.Array):
      found[f"{name} must be a dm_env.specs.Array, got {spec!r}."] = None
  if not isinstance(action_spec, specs.Array):
    found[
      f"action_spec() must be a dm_env.specs.Array, got {action_spec!r}."
    ] = None
  if found:
    return list(found)

  rng = np.random.default_rng(seed)
  deadline = time.monotonic() + max_seconds
  step = environment.reset()
  if step.step_type != dm_env.StepType.FIRST:
    found[f"reset() must return FIRST, got {step.step_type!r}."] = None
  ended = False
  for number in range(max_steps):
    found |= dict.fromkeys(
      _observation_problems(observation_spec, step.observation)
    )
    found |= dict.fromkeys(_transition_problems(step, expect_first=ended))
    if number and time.monotonic() > deadline:
      break
    ended = step.step_type == dm_env.StepType.LAST
    step = environment.step(random_action(action_spec, rng))
    if not ended and step.step_type == dm_env.StepType.FIRST:
      found["step() returned FIRST although the step before was no LAST."] = (
        None
      )
  return list(found)


def _transition_problems(
  step: dm_env.TimeStep, expect_first: bool
) -> list[str]:
  if step.step_type not in tuple(dm_env.StepType):
    return [f"step_type must be a dm_env.StepType, got {step.step_type!r}."]
  if step.step_type == dm_env.StepType.FIRST:
    return []
  problems = []
  if expect_first:
    problems.append(
      f"step() after LAST must start an episode, but returned"
      f" {dm_env.StepType(step.step_type).name}."
    )
  if not _is_number(step.reward):
    problems.append(f"reward must be one finite number, got {step.reward!r}.")
  if not _is_number(step.discount) or not 0 <= float(step.discount) <= 1:
    problems.append(
      "discount must be one number in [0, 1] (0 at a terminal state, 1 where a"
      f" limit ends an episode), got {step.discount!r}."
    )
  return problems


def _is_number(value: Any) -> bool:
  try:
    return np.ndim(value) == 0 and bool(np.isfinite(float(value)))
  except (TypeError, ValueError):
    return False


def _observation_problems(spec: Any, observation: Any) -> list[str]:
  expected = dict(_leaves("observation", spec))
  got = dict(_leaves("observation", observation))
  if expected.keys() != got.keys():
    return [
      f"the observation's parts must be {sorted(expected)}, got {sorted(got)}."
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
