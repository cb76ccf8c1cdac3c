"""Batches of environments, and the bridges between them and dm_env."""

import abc
import collections
import math
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np
from dm_env import specs

from acme_stac import checks
from acme_stac.environments import precision

# Of one observation or action that a file describes: a slip, or ill will.
_MAX_ELEMENTS = 2**24


class EnvironmentSpec(NamedTuple):
  """The specs of one environment, as `acme.specs.EnvironmentSpec` has them."""

  observations: Any
  actions: Any
  rewards: Any
  discounts: Any


def environment_spec(environment: Any) -> EnvironmentSpec:
  """Returns the specs of a dm_env or batched environment (of one member).

  Observations are as a `GuardedEnvironment` gives them: in 32 bits, and nested
  in dicts, tuples and lists.
  """
  return EnvironmentSpec(
    observations=precision.narrow_spec(
      plain_nest(environment.observation_spec())
    ),
    actions=environment.action_spec(),
    rewards=environment.reward_spec(),
    discounts=environment.discount_spec(),
  )


def spec_to_json(spec: EnvironmentSpec) -> dict[str, Any]:
  """Returns what an agent needs to know of the specs, for `spec_from_json`."""
  return {
    "observations": _nest_to_json(spec.observations),
    "actions": _leaf_to_json(spec.actions),
  }


def _leaf_to_json(spec: specs.Array) -> dict[str, Any]:
  described: dict[str, Any] = {
    "shape": list(spec.shape), "dtype": np.dtype(spec.dtype).name
  }
  if isinstance(spec, specs.DiscreteArray):
    described["num_values"] = int(spec.num_values)
  elif isinstance(spec, specs.BoundedArray):
    for name in ("minimum", "maximum"):
      described[name] = _bound_to_json(getattr(spec, name), spec.shape)
  return described


def _bound_to_json(bound: np.ndarray, shape: tuple[int, ...]) -> Any:
  """Returns a number if all elements have the same bound, else nested lists.

  JSON has no infinity: it is the text "inf" or "-inf".
  """
  bound = np.broadcast_to(bound, shape)
  if bound.size and np.all(bound == bound.flat[0]):
    bound = bound.flat[0]
  if not np.size(bound):
    return 0

  def plain(x: Any) -> Any:
    if isinstance(x, list):
      return [plain(part) for part in x]
    return str(x) if isinstance(x, float) and math.isinf(x) else x

  return plain(bound.tolist())


def _nest_to_json(nest: Any) -> dict[str, Any]:
  # JAX sorts a dict and leaves the order of an ordered one.
  kind = "ordered" if isinstance(nest, collections.OrderedDict) else "dict"
  if isinstance(nest, Mapping):
    return {kind: [[key, _nest_to_json(x)] for key, x in nest.items()]}
  if isinstance(nest, tuple | list):
    return {"sequence": [_nest_to_json(x) for x in nest]}
  return _leaf_to_json(nest)


def spec_from_json(described: dict[str, Any]) -> EnvironmentSpec:
  """Returns specs that make the same networks as those of `spec_to_json`.

  Files of older versions have no bounds of observations. Their specs have none
  either, and networks take such observations as those versions did.

  Raises:
    Exception: of many kinds, if `described` is something else.
  """
  actions = _leaf_from_json(described["actions"])
  if not isinstance(actions, specs.BoundedArray):
    raise ValueError("Actions have neither a number of values nor bounds.")
  return EnvironmentSpec(
    observations=_nest_from_json(described["observations"]),
    actions=actions,
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
  )


def _nest_from_json(described: dict[str, Any]) -> Any:
  for kind, make in (("ordered", collections.OrderedDict), ("dict", dict)):
    if kind in described:
      return make((key, _nest_from_json(x)) for key, x in described[kind])
  if "sequence" in described:
    return tuple(_nest_from_json(x) for x in described["sequence"])
  return _leaf_from_json(described)


def _leaf_from_json(described: dict[str, Any]) -> specs.Array:
  shape, dtype = _shape(described), np.dtype(described["dtype"])
  if "num_values" in described:
    if shape:
      raise ValueError(f"One choice has shape (), not {shape}.")
    return specs.DiscreteArray(described["num_values"], dtype)
  if "minimum" in described:
    # NumPy reads the texts of infinities.
    low, high = (
      np.array(described[name], dtype) for name in ("minimum", "maximum")
    )
    return specs.BoundedArray(shape, dtype, low, high)
  return specs.Array(shape, dtype)


def without_bounds(spec: EnvironmentSpec) -> EnvironmentSpec:
  """Returns specs whose observations are those of a file of older versions."""
  return spec._replace(
    observations=jax.tree_util.tree_map(
      lambda leaf: specs.Array(leaf.shape, leaf.dtype, leaf.name),
      spec.observations,
    )
  )


def has_bounds(spec: EnvironmentSpec) -> bool:
  """Returns whether any part of the observation has bounds."""
  return any(
    isinstance(leaf, specs.BoundedArray)
    for leaf in jax.tree_util.tree_leaves(spec.observations)
  )


def observations_fit(have: dict[str, Any], wanted: dict[str, Any]) -> bool:
  """Returns whether a policy takes an environment's observations.

  Bounds need not be equal where networks do not depend on them: those of
  vectors of floats, and those that an older version's file leaves out.

  Args:
    have: `spec_to_json` of the environment.
    wanted: the same of the policy.
  """
  ours, theirs = (
    precision.narrow_spec(_nest_from_json(described["observations"]))
    for described in (have, wanted)
  )
  structure: Any = jax.tree_util.tree_structure(ours)
  return structure == jax.tree_util.tree_structure(theirs) and all(
    map(
      _leaf_fits,
      jax.tree_util.tree_leaves(ours),
      jax.tree_util.tree_leaves(theirs),
    )
  )


def _leaf_fits(have: specs.Array, wanted: specs.Array) -> bool:
  if have.shape != wanted.shape or have.dtype != wanted.dtype:
    return False
  is_features = have.dtype.kind == "f" and len(have.shape) < 2
  if is_features or not isinstance(wanted, specs.BoundedArray):
    return True
  return (
    isinstance(have, specs.BoundedArray)
    and bool(np.all(have.minimum == wanted.minimum))
    and bool(np.all(have.maximum == wanted.maximum))
  )


def _shape(described: dict[str, Any]) -> tuple[int, ...]:
  """Returns a shape; raises ValueError for one that nothing here has."""
  shape = tuple(described["shape"])
  for size in shape:
    checks.check_integer("each size of a shape", size, 0, _MAX_ELEMENTS)
  if math.prod(shape) > _MAX_ELEMENTS:
    raise ValueError(f"{shape} is too large for an observation or an action")
  return shape


class BatchedEnvironment(abc.ABC):
  """N environments that step together, with dm_env's semantics for each.

  Time steps are `dm_env.TimeStep`s whose leaves have a leading axis [N]. A
  member that returned LAST starts its next episode at the next step, whatever
  its action, and returns FIRST. `reward` and `discount` of a FIRST step are 0
  and 1 and belong to no transition. Arrays of a time step may be overwritten by
  the next step; copy what is to be kept.

  Specs describe one member, without the batch axis.
  """

  num_environments: int
  # Environment steps (frames) per action.
  action_repeat: int = 1

  @abc.abstractmethod
  def reset(self) -> dm_env.TimeStep:
    """Starts a new episode in every member."""

  @abc.abstractmethod
  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    """Steps every member with its action of `actions`, [N, ...]."""

  @abc.abstractmethod
  def observation_spec(self) -> Any:
    """Returns the spec of one member's observation."""

  @abc.abstractmethod
  def action_spec(self) -> Any:
    """Returns the spec of one member's action."""

  def reward_spec(self) -> dm_env.specs.Array:
    """Returns the spec of one member's reward."""
    return dm_env.specs.Array((), np.float32, name="reward")

  def discount_spec(self) -> dm_env.specs.BoundedArray:
    """Returns the spec of one member's discount."""
    return dm_env.specs.BoundedArray((), np.float32, 0.0, 1.0, name="discount")

  def render(self) -> np.ndarray:
    """Draws the first member as it is at its newest time step.

    Returns:
      RGB, uint8 [height, width, 3]. The next call may overwrite it.

    Raises:
      NotImplementedError: if it cannot be drawn.
    """
    raise NotImplementedError(
      f"{type(self).__name__} has no method render() that draws it."
    )

  def close(self):  # noqa: B027  Many have nothing to free.
    """Frees the resources of the environments."""


def check_choices(actions: Any, num_choices: int, num_environments: int):
  """Raises ValueError unless actions are [N] whole numbers in their range."""
  actions = np.asarray(actions)
  if actions.shape != (num_environments,) or actions.dtype.kind not in "iu":
    raise ValueError(
      f"Actions must be {num_environments} whole numbers, got {actions.dtype}"
      f" of shape {actions.shape}."
    )
  if actions.min() < 0 or actions.max() >= num_choices:
    raise ValueError(
      f"Actions must be in [0, {num_choices}), got {actions.tolist()}."
    )


def time_step(
  observation: Any,
  reward: np.ndarray,
  first: np.ndarray,
  terminated: np.ndarray,
  truncated: np.ndarray,
) -> dm_env.TimeStep:
  """Returns a batched time step from what vector environments return.

  Args:
    observation: nest of arrays [N, ...].
    reward: [N], ignored where `first`.
    first: [N] bool, members that started an episode.
    terminated: [N] bool, members whose episode ended in a terminal state.
    truncated: [N] bool, members whose episode was cut off by a limit: they end
      with discount 1, so that values bootstrap there.
  """
  step_type = np.full(first.shape, dm_env.StepType.MID, np.int32)
  step_type[terminated | truncated] = dm_env.StepType.LAST
  step_type[first] = dm_env.StepType.FIRST
  discount = 1.0 - (terminated & ~first).astype(np.float32)
  reward = precision.narrow_numbers("reward", np.where(first, 0.0, reward))
  return dm_env.TimeStep(step_type, reward, discount, observation)


def first_time_step(
  observation: Any, num_environments: int
) -> dm_env.TimeStep:
  """Returns the time step at which every member starts an episode."""
  no = np.zeros(num_environments, bool)
  return time_step(observation, np.zeros(num_environments), ~no, no, no)


def plain_nest(nest: Any) -> Any:
  """Returns a nest whose mappings are dicts, which JAX can look into.

  An `OrderedDict` keeps its type, as JAX does not sort its keys. Other
  mappings, such as `types.MappingProxyType`, become dicts.
  """
  if isinstance(nest, Mapping):
    ordered = isinstance(nest, collections.OrderedDict)
    make = collections.OrderedDict if ordered else dict
    return make((key, plain_nest(part)) for key, part in nest.items())
  if isinstance(nest, tuple | list):
    return _sequence(nest, [plain_nest(part) for part in nest])
  return nest


def _sequence(like: Any, parts: list[Any]) -> Any:
  """Returns parts as a sequence of the type of another."""
  if hasattr(like, "_fields"):  # A named tuple.
    return type(like)(*parts)
  return type(like)(parts)


def select(spec: Any, nest: Any) -> Any:
  """Returns the parts of a nest that a spec names, in the spec's structure.

  Args:
    spec: of `plain_nest`.
    nest: mappings and sequences of any type; may have further parts.

  Raises:
    LookupError, TypeError, ValueError: if parts are missing.
  """
  if isinstance(spec, Mapping):
    ordered = isinstance(spec, collections.OrderedDict)
    make = collections.OrderedDict if ordered else dict
    return make((key, select(part, nest[key])) for key, part in spec.items())
  if isinstance(spec, tuple | list):
    return _sequence(spec, list(map(select, spec, nest)))
  return nest


def named_leaves(name: str, nest: Any) -> list[tuple[str, Any]]:
  """Returns the leaves of a nest, each with `name` and the path to it.

  Raises:
    ValueError: if the keys of a dict cannot be sorted.
  """
  try:
    paths, _ = jax.tree_util.tree_flatten_with_path(plain_nest(nest))
  except ValueError as error:
    raise ValueError(
      f"{name} has a dict whose keys cannot be sorted, such as numbers beside"
      " texts: give all parts texts as names."
    ) from error
  return [(name + jax.tree_util.keystr(path), leaf) for path, leaf in paths]


def observation_parts(
  spec: Any, observation: Any, name: str = "observation"
) -> tuple[list[tuple[str, specs.Array, np.ndarray]], list[str]]:
  """Compares an observation with its spec.

  Returns:
    The name, the spec and the value of every part that is as its spec says; and
    a line for each that is not.
  """
  if isinstance(spec, Mapping | tuple | list):
    both: Any = _children(spec), _children(observation)
    if both[1] is None or both[0].keys() != both[1].keys():
      got = both[1] if both[1] is None else [*both[1]]
      return [], [
        f"{name}'s parts must be {[*both[0]]}, got {got} (of type"
        f" {type(observation).__name__})."
      ]
    parts, problems = [], []
    for key, part in both[0].items():
      more = observation_parts(part, both[1][key], f"{name}[{key!r}]")
      parts += more[0]
      problems += more[1]
    return parts, problems
  try:
    value = np.asarray(observation)
  except ValueError:  # Lists of different lengths.
    return [], [f"{name} must be one array, got {observation!r}."]
  if value.shape != spec.shape:
    return [], [f"{name} must have shape {spec.shape}, got {value.shape}."]
  # Python's numbers have no precision of their own.
  typed = isinstance(observation, np.ndarray | np.generic | jax.Array)
  if value.dtype != spec.dtype and (
    typed or not np.can_cast(value.dtype, spec.dtype, "same_kind")
  ):
    return [], [f"{name} must be {spec.dtype}, got {value.dtype}."]
  return [(name, spec, value)], []


def _children(nest: Any) -> Mapping[Any, Any] | None:
  """Returns the parts of a nest by name or number; None if it has none."""
  if isinstance(nest, Mapping):
    return nest
  if isinstance(nest, tuple | list):
    return dict(enumerate(nest))
  return None


def describe_error(error: BaseException) -> str:
  """Returns the type, the text and the place of an error, on one line.

  The line of code that raised stands for a text that is missing, as that of a
  bare `assert`.
  """
  frames = traceback.extract_tb(error.__traceback__)
  if not frames:
    return f"{type(error).__name__}: {error}"
  place = frames[-1]
  text = str(error) or f"at `{place.line}`"
  return (
    f"{type(error).__name__}: {text} ({place.filename}, line {place.lineno})"
  )


def close(environment: Any):
  """Closes an environment; warns if that raises, as nothing depends on it."""
  try:
    environment.close()
  except (Exception, SystemExit) as error:
    warnings.warn(
      f"The environment's close() raised {describe_error(error)}.",
      stacklevel=2,
    )


class BatchOfEnvironments(BatchedEnvironment):
  """Steps single dm_env environments one after the other.

  A member whose episode ended is reset at the next step, as by Acme's
  environment loop, whether or not its own `step` would start an episode.
  """

  def __init__(self, environments: Sequence[dm_env.Environment]):
    """Takes ownership of `environments`, which must have equal specs.

    Raises:
      ValueError: if there are none, or their specs differ.
    """
    if not environments:
      raise ValueError("A batch needs at least one environment.")
    if len(set(map(id, environments))) < len(environments):
      raise ValueError("Members of a batch must be environments of their own.")
    first, *others = environments
    for other in others:
      if environment_spec(other) != environment_spec(first):
        raise ValueError(
          "Environments of one batch must have equal specs, got"
          f" {environment_spec(first)} and {environment_spec(other)}."
        )
    self.members = list(environments)
    self.num_environments = len(environments)
    self._ended = [True] * len(environments)
    self._observation_spec = plain_nest(first.observation_spec())
    # Written over by every step.
    self._observation = jax.tree_util.tree_map(
      lambda spec: np.empty((len(environments), *spec.shape), spec.dtype),
      self._observation_spec,
    )

  def _stack(self, steps: Sequence[dm_env.TimeStep]) -> dm_env.TimeStep:
    try:
      jax.tree_util.tree_map(
        lambda out, *leaves: np.stack(leaves, out=out),
        self._observation,
        *[select(self._observation_spec, step.observation) for step in steps],
      )
    except Exception as error:  # Whatever is wrong with an observation.
      for step in steps:
        _, problems = observation_parts(
          self._observation_spec, step.observation
        )
        if problems:
          raise ValueError(" ".join(problems)) from error
      raise

    def column(name: str, default: float) -> np.ndarray:
      values = [getattr(step, name) for step in steps]
      return precision.narrow_numbers(
        name, [default if value is None else value for value in values]
      )

    step_type = np.array([step.step_type for step in steps], np.int32)
    self._ended = (step_type == int(dm_env.StepType.LAST)).tolist()
    return dm_env.TimeStep(
      step_type,
      column("reward", 0.0),
      column("discount", 1.0),
      self._observation,
    )

  def reset(self) -> dm_env.TimeStep:
    return self._stack([member.reset() for member in self.members])

  def step(self, actions: np.ndarray) -> dm_env.TimeStep:
    return self._stack([
      member.reset() if ended else member.step(action)
      for member, action, ended in zip(
        self.members, actions, self._ended, strict=True
      )
    ])

  def observation_spec(self) -> Any:
    return self._observation_spec

  def action_spec(self) -> Any:
    return self.members[0].action_spec()

  def render(self) -> np.ndarray:
    member: Any = self.members[0]
    if not callable(getattr(member, "render", None)):
      raise NotImplementedError(
        f"{type(member).__name__} has no method render() that draws it."
      )
    return np.asarray(member.render())

  def close(self):
    for member in self.members:
      close(member)


class EnvironmentOfBatch(dm_env.Environment):
  """The one member of a batched environment as a dm_env environment."""

  def __init__(self, batch: BatchedEnvironment):
    if batch.num_environments != 1:
      raise ValueError(f"Need a batch of one, got {batch.num_environments}.")
    self.batch = batch
    self._needs_reset = True

  def _first(self, observation: Any) -> dm_env.TimeStep:
    self._needs_reset = False
    return dm_env.restart(observation)

  def reset(self) -> dm_env.TimeStep:
    return self._first(_member(self.batch.reset().observation))

  def step(self, action: Any) -> dm_env.TimeStep:
    if self._needs_reset:
      return self.reset()
    step = self.batch.step(np.asarray(action)[None])
    observation = _member(step.observation)
    if step.step_type[0] == dm_env.StepType.FIRST:
      return self._first(observation)
    return dm_env.TimeStep(
      dm_env.StepType(int(step.step_type[0])),
      float(step.reward[0]),
      float(step.discount[0]),
      observation,
    )

  def observation_spec(self) -> Any:
    return self.batch.observation_spec()

  def action_spec(self) -> Any:
    return self.batch.action_spec()

  def reward_spec(self) -> Any:
    return self.batch.reward_spec()

  def discount_spec(self) -> Any:
    return self.batch.discount_spec()

  def render(self) -> np.ndarray:
    return self.batch.render()

  def close(self):
    self.batch.close()


def _member(observation: Any) -> Any:
  return jax.tree_util.tree_map(lambda x: np.array(x[0]), observation)
