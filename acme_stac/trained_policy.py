"""Saves, loads, exports and runs trained policies.

Needs JAX and Haiku, but neither Launchpad, Reverb, TensorFlow nor Acme.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_stac import checkpointing, environments
from acme_stac.checks import check_integer
from acme_stac.config import STACConfig
from acme_stac.core import TrainingState, conditioning, init_metaparams, squash
from acme_stac.environments import precision
from acme_stac.networks import (
  ActingState,
  STACNetworks,
  make_networks,
  make_policy,
)


class _Acting(NamedTuple):
  """The part of a `core.TrainingState` that acting needs, same names."""

  params: Any
  metaparams: Any


@dataclasses.dataclass
class EpisodeState:
  """A policy's memory of the current episodes; changed by every action.

  Attributes:
    begins: which of the N environments are at the first step of an episode,
      [N] bool. All of them initially, none after an action. Set it where an
      episode begins.
  """

  begins: np.ndarray
  _acting: ActingState
  _key: jax.Array
  _single: bool

  @property
  def head(self) -> np.ndarray:
    """Index of the head that acted last in each environment, [N].

    Always 0 unless the behaviour is "random_head", which draws a head for each
    episode.
    """
    return np.asarray(self._acting.head)


class ActState(NamedTuple):
  """The memory of `TrainedPolicy.act` for N environments, as arrays.

  Attributes:
    acting: recurrent state and acting head, nest of [N, ...].
    begins: which of them are at the first step of an episode, [N] bool.
  """

  acting: ActingState
  begins: jax.Array


class TrainedPolicy:
  """Acts as a trained agent.

      state = policy.initial_state()  # at the start of every episode
      action = policy(observation, state)

  or, as a pure function that jax.jit and jax.lax.scan can transform,

      state = policy.initial_act_state(n)
      actions, state = policy.act(observations, state, key)

  It can be copied and pickled, for example for another process.

  Attributes:
    config: the agent's hyperparameters.
    metadata: of the run: "agent", "environment", "environment_options",
      "environment_steps", and more of its config.json.
    metaparameters: σ(η) of what is self-tuned, by name, one value for each
      head, [P].
  """

  def __init__(
    self,
    config: STACConfig,
    environment_spec: Any,
    networks: STACNetworks,
    params: Any,
    conditioning: Any,
    metadata: dict[str, Any] | None = None,
    greedy: bool = False,
    metaparameters: dict[str, np.ndarray] | None = None,
    network_factory: Callable[[Any, STACConfig], STACNetworks] | None = None,
  ):
    """Makes a policy.

    Args:
      config: the agent's hyperparameters.
      environment_spec: specs of one environment.
      networks: the agent's networks.
      params: their parameters.
      conditioning: `core.conditioning` of the metaparameters, [P, K].
      metadata: of the run.
      greedy: act by the distribution's mode instead of a sample.
      metaparameters: σ(η) by name, for inspection only.
      network_factory: made `networks`; a policy without it cannot be pickled.
    """
    self._greedy = greedy
    self._network_factory = network_factory
    self.config = config
    self.metadata = metadata or {}
    self.metaparameters = metaparameters or {}
    self._spec = environment_spec
    self._leaves = jax.tree_util.tree_leaves(environment_spec.observations)
    self._params = params
    self._key = jax.random.PRNGKey(0)
    self._conditioning = conditioning
    self._prepare(networks)

  def _prepare(self, networks: STACNetworks):
    self._policy = make_policy(networks, self.config, self._greedy)
    self._select = jax.jit(self._policy.select_action)

  def initial_state(
    self, num_environments: int | None = None, seed: int | None = None
  ) -> EpisodeState:
    """Returns the state before an episode.

    Args:
      num_environments: of a batch, whose observations and actions are
        [N, ...]; None for one environment.
      seed: of the samples. By default, every state has samples of its own,
        which repeat when the policy is loaded again.

    Raises:
      ValueError: if there are no environments.
    """
    number = 1 if num_environments is None else num_environments
    check_integer("num_environments", number, 1)
    if seed is None:
      following, key = jax.random.split(self._key)
    else:
      following, key = self._key, jax.random.PRNGKey(seed)
    acting = self._policy.initial_state(number)
    _check_concrete((following, key, acting))
    self._key = following
    return EpisodeState(
      np.ones([number], bool), acting, key, num_environments is None
    )

  def initial_act_state(self, num_environments: int) -> ActState:
    """Returns the state of `act` before the episodes of N environments.

    Raises:
      ValueError: if there are no environments.
    """
    check_integer("num_environments", num_environments, 1)
    return ActState(
      self._policy.initial_state(num_environments),
      jnp.ones([num_environments], bool),
    )

  def act(
    self, observation: Any, state: ActState, key: jax.Array
  ) -> tuple[jax.Array, ActState]:
    """Returns actions and the next state; a pure function.

    Args:
      observation: of N environments, nest of [N, ...].
      state: of `initial_act_state`, or of the step before. Where an episode
        begins, `state._replace(begins=...)` says so.
      key: of the samples; a fresh one for every step.

    Returns:
      The environments' actions [N, ...], and the state.

    Raises:
      ValueError: if the observation is not of the environment's spec.
    """
    number = state.begins.shape[0]
    observation = environments.nests.select(
      self._spec.observations, observation
    )
    rows = self._in_spec(
      list(map(jnp.asarray, jax.tree_util.tree_leaves(observation))), number
    )
    first, mid = int(dm_env.StepType.FIRST), int(dm_env.StepType.MID)
    action, _, acting, _ = self._policy.select_action(
      self._params,
      rows,
      jnp.where(state.begins, first, mid),
      state.acting,
      key,
      self._conditioning,
    )
    actions = self._policy.to_environment(jnp.asarray(action))
    return actions, ActState(acting, jnp.zeros([number], bool))

  def make_environment(
    self, seed: int = 0, allow_import: bool = False, **options: Any
  ) -> dm_env.Environment:
    """Makes the environment that the policy was trained in.

    Args:
      seed: of the environment.
      allow_import: whether the policy's file may choose code to import, as
        python:<module>:<factory> and gymnasium:<module>:<id> do. Allow it only
        for files that you trust.
      **options: in place of those of the run, by name.

    Raises:
      ValueError: if the file does not name an environment, or names code while
        `allow_import` is False, or if it cannot be made.
    """
    name = self.metadata.get("environment")
    if name is None:
      raise ValueError(
        "The policy does not say what it was trained on: make the environment"
        " with acme_stac.environments.make."
      )
    options = {**(self.metadata.get("environment_options") or {}), **options}
    if environments.imports_code(name, options) and not allow_import:
      raise ValueError(
        f"The policy was trained with code of its own, {name!r} with options"
        f" {options}. A file does not say what code is to be run: pass"
        " allow_import=True if you trust it."
      )
    return environments.make(name, seed, **options)

  def __getstate__(self) -> dict[str, Any]:
    if self._network_factory is None:
      raise TypeError(
        "This policy cannot be copied or pickled without the function that"
        " made its networks: give network_factory when it is made."
      )
    state = vars(self).copy()
    del state["_policy"], state["_select"]
    return state

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    assert self._network_factory is not None
    self._prepare(self._network_factory(self._spec, self.config))

  def __call__(self, observation: Any, state: EpisodeState) -> np.ndarray:
    """Returns the environment's next action and updates the state.

    Args:
      observation: as the environment gives it; [N, ...] for a batch.
      state: of `initial_state`.

    Raises:
      ValueError: if the observation is not of the environment's spec, or if
        this is called inside a function that JAX transforms; the state is
        unchanged then. `act` can be transformed.
    """
    if not isinstance(state, EpisodeState):
      raise ValueError(
        f"state must be what initial_state() gave, got {type(state).__name__}."
        " That of initial_act_state() is for policy.act."
      )
    _check_concrete((observation, state.begins))
    begins, number = np.array(state.begins, bool), len(state.head)
    if begins.shape != (number,):
      raise ValueError(
        f"begins must have the shape ({number},), got {begins.shape}."
      )
    observation = self._rows(observation, number, state._single)
    step_type = np.where(
      begins, dm_env.StepType.FIRST, dm_env.StepType.MID
    ).astype(np.int32)
    action, _, acting, key = self._select(
      self._params,
      observation,
      step_type,
      state._acting,
      state._key,
      self._conditioning,
    )
    _check_concrete((action, acting, key))
    actions = self._policy.to_environment(np.asarray(action))
    state._acting, state._key = acting, key
    state.begins = np.zeros_like(begins)
    return actions[0] if state._single else actions

  def _rows(self, observation: Any, number: int, single: bool) -> Any:
    """Returns the observation [N, ...] in the structure of the spec."""
    try:
      # Any mapping will do, and parts that are no numbers may stay in it.
      observation = environments.nests.select(
        self._spec.observations, observation
      )
    except (LookupError, TypeError) as error:
      raise ValueError(
        "The observation does not have the parts that this policy was trained"
        f" on, {self._spec.observations}."
      ) from error
    # By the spec: a list may be an array of one part.
    observation = jax.tree_util.tree_map(
      lambda _, part: np.asarray(part), self._spec.observations, observation
    )
    leaves = jax.tree_util.tree_leaves(precision.narrow(observation))
    if single:
      leaves = [leaf[None] for leaf in leaves]
    return self._in_spec(leaves, number)

  def _in_spec(self, leaves: list[Any], number: int) -> Any:
    """Returns leaves [N, ...] with the structure and dtypes of the spec."""
    wanted = [(number, *spec.shape) for spec in self._leaves]
    if [leaf.shape for leaf in leaves] != wanted:
      raise ValueError(
        f"The observation has shapes {[leaf.shape for leaf in leaves]} for"
        f" {number} environments, but this policy was trained on {wanted}."
      )
    leaves = [
      leaf if leaf.dtype == spec.dtype else leaf.astype(spec.dtype)
      for leaf, spec in zip(leaves, self._leaves, strict=True)
    ]
    structure = jax.tree_util.tree_structure(self._spec.observations)
    return jax.tree_util.tree_unflatten(structure, leaves)


def _check_concrete(nest: Any):
  """Raises ValueError for arrays that JAX is tracing."""
  if any(
    isinstance(x, jax.core.Tracer) for x in jax.tree_util.tree_leaves(nest)
  ):
    raise ValueError(
      "A policy that changes its state cannot be called inside jax.jit,"
      " jax.vmap, jax.lax.scan and the like: use policy.act(observation, state,"
      " key) with policy.initial_act_state(n) there."
    )


def load_policy(
  path: str | os.PathLike,
  greedy: bool = False,
  network_factory: Callable[[Any, STACConfig], STACNetworks] | None = None,
) -> TrainedPolicy:
  """Loads a trained policy.

  Args:
    path: a work directory, whose newest checkpoint is read; or a file: one of
      its checkpoints or what `export_policy` wrote.
    greedy: act by the distribution's mode instead of a sample.
    network_factory: made the networks, if the run had a factory of its own;
      files never choose code to run.

  Raises:
    CheckpointError: (a ValueError) if there is none, or it is damaged.
  """
  path, arrays, metadata = _read(pathlib.Path(path))
  if network_factory is None and metadata.get("networks"):
    raise ValueError(
      f"{path} was trained with networks of {metadata['networks']!r}: give that"
      " function as network_factory."
    )
  network_factory = network_factory or make_networks
  try:
    spec = environments.spec_from_json(metadata["environment_spec"])
    config = STACConfig(
      **{**_image_channels_before(spec), **metadata["config"]}
    )
    networks = network_factory(spec, config)
    template = jax.eval_shape(
      lambda: _Acting(
        networks.init(jax.random.PRNGKey(0)), init_metaparams(config)
      )
    )
  except Exception as error:  # Whatever wrong metadata raise; chained.
    raise checkpointing.CheckpointError(
      f"{path} does not say how its agent was made, or another version of"
      f" acme_stac wrote it: {type(error).__name__}: {error}"
    ) from error
  try:
    state = checkpointing.fit(path, arrays, template)
  except checkpointing.CheckpointError as error:
    hint = (
      "the networks of acme_stac. If others were trained, give the function"
      " that made them as network_factory (of programs.evaluate: --networks)."
      if network_factory is make_networks
      else f"the networks of {network_factory!r}."
    )
    raise checkpointing.CheckpointError(
      f"{error}\nIt was read with {hint}"
    ) from error
  squashed = squash(state.metaparams, config)
  return TrainedPolicy(
    config,
    spec,
    networks,
    state.params,
    conditioning(state.metaparams, config),
    metadata,
    greedy,
    {name: np.asarray(squashed[name]) for name in config.self_tuned},
    network_factory,
  )


def _image_channels_before(spec: Any) -> dict[str, Any]:
  """Returns the image layout of older files, which do not record it."""
  leaves = jax.tree_util.tree_leaves(spec.observations)
  if len(leaves) != 1 or len(leaves[0].shape) != 3:
    return {}
  first = leaves[0].shape[0] < leaves[0].shape[2]
  return {"image_channels": "first" if first else "last"}


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """Returns the metadata of a policy's file.

  Args:
    path: what `load_policy` takes.

  Raises:
    CheckpointError: (a ValueError) if there is none, or it is damaged.
  """
  return _read(pathlib.Path(path))[2]


def export_policy(
  path: str | os.PathLike, output: str | os.PathLike
) -> dict[str, Any]:
  """Writes a policy to one .npz file: parameters and configuration.

  Args:
    path: what `load_policy` takes.
    output: the file; its arrays are named as in a checkpoint, and "metadata"
      is JSON.

  Returns:
    The metadata.

  Raises:
    CheckpointError: if there is no policy, or it is damaged.
    OSError: if the file cannot be written.
  """
  _, arrays, metadata = _read(pathlib.Path(path))
  checkpointing.write(pathlib.Path(output), arrays, metadata)
  return metadata


def save_policy(
  output: str | os.PathLike,
  state: TrainingState,
  config: STACConfig,
  environment_spec: Any,
  network_factory: Callable[[Any, STACConfig], STACNetworks] | None = None,
  **metadata: Any,
):
  """Writes a learner's policy to a file for `load_policy`.

  Args:
    output: the file.
    state: of `core.Update`, or of a learner's `save`.
    config: the agent's hyperparameters.
    environment_spec: specs of one environment.
    network_factory: made the networks, if it was your own function. The file
      records its name, so that `load_policy` can ask for it.
    **metadata: anything that JSON can hold.

  Raises:
    OSError: if the file cannot be written.
  """
  acting = _Acting(state.params, state.metaparams)
  if network_factory not in (None, make_networks):
    module, name = network_factory.__module__, network_factory.__qualname__
    metadata.setdefault("networks", f"python:{module}:{name}")
  checkpointing.write(
    pathlib.Path(output),
    checkpointing.named_arrays(acting),
    {
      **metadata,
      "config": dataclasses.asdict(config),
      "environment_spec": environments.spec_to_json(environment_spec),
    },
  )


def _read(
  path: pathlib.Path,
) -> tuple[pathlib.Path, dict[str, np.ndarray], dict[str, Any]]:
  """Returns the file that is read, its arrays for acting, and its metadata."""
  path = path.expanduser()
  if not path.exists():
    raise checkpointing.CheckpointError(f"There is no file or folder {path}.")
  if path.is_dir():
    newest = checkpointing.read_newest(path / "checkpoints")
    if newest is None:
      raise checkpointing.CheckpointError(
        f"{path} has no checkpoints of this project: it is no work directory of"
        " programs.train, or its run has not written one yet. Acme's own"
        " checkpoints are for its learner: acme_stac.save_policy writes that"
        " learner's policy."
      )
    path, arrays, metadata = newest
  else:
    arrays, metadata = checkpointing.read(path)
  of_acting = tuple(f".{name}[" for name in _Acting._fields)
  return (
    path,
    {name: x for name, x in arrays.items() if name.startswith(of_acting)},
    metadata,
  )
