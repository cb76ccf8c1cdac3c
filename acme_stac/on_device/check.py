"""Finds what is wrong with an environment in JAX before it is trained in."""

from collections.abc import Callable, Iterator
from typing import Any

import dm_env
import jax
import numpy as np

from acme_stac import config, environments
from acme_stac.environments import errors, nests
from acme_stac.environments.check import check_specs, random_action
from acme_stac.networks import actions
from acme_stac.on_device import batches
from acme_stac.on_device.environment import Environment

_MEMBERS, _SEED = 2, 0
# How long an environment is played, and played again.
_STEPS, _SECONDS, _REPEATED_STEPS = 64, 1.0, 8
_MAX_SHOWN = 10


def check(environment: Environment):
  """Checks that an environment can be compiled, and plays it at random.

  Looks at shapes and types first, without compiling anything: of specs, of
  time steps, and of the state, which `step` must not change. Then compares
  what reset and step compute when they are traced again and when they are
  called again, and plays two members for a second.

  Warns if observations or rewards leave the bounds of their specs.

  Args:
    environment: to check.

  Raises:
    ValueError: if anything is wrong, with the environment's name and a line
      for each problem.
  """
  if not isinstance(environment, Environment):
    raise ValueError(
      "An environment written in JAX must be an instance of a subclass of"
      f" acme_stac.on_device.Environment, got {environment!r}."
    )
  name = getattr(environment, "name", type(environment).__name__)
  for find_problems in (_of_specs, _of_tracing, _of_purity, _of_playing):
    problems = find_problems(environment)
    if len(problems) > _MAX_SHOWN:
      more = f"and {len(problems) - _MAX_SHOWN} more"
      problems = [*problems[:_MAX_SHOWN], more]
    if problems:
      raise ValueError(
        f"Environment {name!r} cannot be trained on the device:\n  "
        + "\n  ".join(problems)
      )


def _of_specs(environment: Environment) -> list[str]:
  """Returns what is wrong with an environment's name and specs."""
  if not isinstance(getattr(environment, "name", None), str):
    return ["its attribute `name` must be a string."]
  try:
    check_specs(environment)
    actions.make_action_space(environment.action_spec(), config.STACConfig())
  except ValueError as error:
    return [str(error)]
  return []


def _arguments(environment: Environment) -> tuple[Any, Any]:
  """Returns the shapes of an action and of a key."""
  spec = environment.action_spec()
  dtype = jax.dtypes.canonicalize_dtype(spec.dtype)
  key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
  return jax.ShapeDtypeStruct(spec.shape, dtype), key


def _of_tracing(environment: Environment) -> list[str]:
  """Returns what is wrong with the shapes and types of reset and step."""
  action, key = _arguments(environment)
  first, problems = _trace("reset", environment.reset, key)
  if problems:
    return problems
  state, reset_step = first
  second, problems = _trace("step", environment.step, state, action, key)
  if problems:
    return problems
  next_state, timestep = second
  return [
    *_differences(state, next_state),
    *_of_timestep("reset", environment, reset_step),
    *_of_timestep("step", environment, timestep),
  ]


def _trace(
  name: str, function: Callable[..., Any], *arguments: Any
) -> tuple[Any, list[str]]:
  """Returns the shapes of a function's results, and what is wrong with it."""
  try:
    # A function of its own, because JAX remembers traces.
    results = jax.eval_shape(lambda *xs: function(*xs), *arguments)
  except Exception as error:  # Whatever a user's environment may raise.
    return None, [
      f"{name}() cannot be traced by JAX; it raised"
      f" {errors.describe_error(error)}."
    ]
  if not (
    isinstance(results, tuple)
    and len(results) == 2
    and isinstance(results[1], dm_env.TimeStep)
  ):
    return None, [
      f"{name}() must return a state and a dm_env.TimeStep (see"
      " acme_stac.on_device.restart and transition), got a"
      f" {type(results).__name__}."
    ]
  try:
    with jax.checking_leaks():
      jax.eval_shape(lambda *xs: function(*xs), *arguments)
  except Exception as error:  # JAX has no type of its own for leaks.
    return None, [
      f"{name}() keeps values of one call (tracers) beyond its end, for example"
      " in an attribute; they belong in the state that it returns. JAX says:"
      f" {error}"
    ]
  return results, []


def _differences(before: Any, after: Any) -> Iterator[str]:
  """Yields the parts of the state whose shape or type step() changes."""
  structure: Any = jax.tree_util.tree_structure(before)
  other_structure: Any = jax.tree_util.tree_structure(after)
  if structure != other_structure:
    yield (
      "step() must return a state of the structure of reset()'s,"
      f" {structure}, got {other_structure}."
    )
    return
  parts, _ = jax.tree_util.tree_flatten_with_path(before)
  for (path, one), other in zip(
    parts, jax.tree_util.tree_leaves(after), strict=True
  ):
    if (one.shape, one.dtype) != (other.shape, other.dtype):
      yield (
        f"state{jax.tree_util.keystr(path)} is {_text(one)} after reset() and"
        f" {_text(other)} after step(): a compiled loop needs one shape and"
        " type."
      )


def _text(leaf: Any) -> str:
  return f"{leaf.dtype}{list(leaf.shape)}"


def _of_timestep(
  method: str, environment: Environment, step: dm_env.TimeStep
) -> Iterator[str]:
  """Yields what is wrong with the shapes and types of a time step."""
  for field, kind in (
    ("step_type", "int32"), ("reward", "float32"), ("discount", "float32")
  ):
    leaf = getattr(step, field)
    if not isinstance(leaf, jax.ShapeDtypeStruct) or _text(leaf) != f"{kind}[]":
      got = _text(leaf) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf
      yield f"{method}()'s {field} must be one {kind}, got {got}."
  spec = environments.environment_spec(environment).observations
  wanted: Any = jax.tree_util.tree_structure(spec)
  observation = nests.plain_nest(step.observation)
  structure: Any = jax.tree_util.tree_structure(observation)
  if structure != wanted:
    yield (
      f"{method}()'s observation must have the structure of its spec, {wanted},"
      f" got {structure}."
    )
    return
  named = nests.named_leaves("observation", spec)
  leaves = jax.tree_util.tree_leaves(observation)
  for (name, part), leaf in zip(named, leaves, strict=True):
    if (leaf.shape, leaf.dtype) != (part.shape, part.dtype):
      yield (
        f"{method}()'s {name} must be {_text(part)}, as its spec says, got"
        f" {_text(leaf)}."
      )


def _of_purity(environment: Environment) -> list[str]:
  """Returns evidence that reset or step is not pure."""
  keys = jax.random.split(jax.random.PRNGKey(_SEED), _MEMBERS)
  action, _ = _arguments(environment)
  action = jax.ShapeDtypeStruct((_MEMBERS, *action.shape), action.dtype)
  again = [batches.compile_functions(environment) for _ in range(2)]
  members, _ = jax.eval_shape(again[0].reset, keys)
  for name, arguments in (("reset", (keys,)), ("step", (members, action))):
    programs = {
      getattr(functions, name).lower(*arguments).as_text()
      for functions in again
    }
    if len(programs) > 1:
      return [
        f"{name}() is not pure: traced again, it is another function. It"
        " depends on something that changes between calls, such as an"
        " attribute, NumPy's random numbers or the time: keep that in the"
        " state, and draw from the key with jax.random."
      ]
  return []


def _of_playing(environment: Environment) -> list[str]:
  """Returns what is wrong with the values of time steps."""
  functions = batches.compile_functions(environment)

  def make() -> batches.Batch:
    return batches.Batch(environment, functions, _MEMBERS, _SEED)

  # Also compiles, so that the second of playing is one.
  played = [_play(make()) for _ in range(2)]
  first = played[0][0]
  if first.reward.any() or (first.discount != 1).any():
    return [
      "reset()'s reward must be 0 and its discount 1, got"
      f" {first.reward[0]} and {first.discount[0]}."
    ]
  try:
    environments.check(make(), _STEPS, _SECONDS)
  except ValueError as error:
    return [str(error)]
  leaves = map(jax.tree_util.tree_leaves, played)
  if not all(map(np.array_equal, *leaves)):
    return [
      "reset() and step() are not pure: called again with equal states, actions"
      " and keys, they return other values."
    ]
  return []


def _play(batch: batches.Batch) -> list[dm_env.TimeStep]:
  """Returns the time steps of a batch that is given equal random actions."""
  rng = np.random.default_rng(_SEED)
  spec = batch.action_spec()
  steps = [batch.reset()]
  for _ in range(_REPEATED_STEPS):
    actions = [random_action(spec, rng) for _ in range(_MEMBERS)]
    steps.append(batch.step(np.stack(actions)))
  return steps
