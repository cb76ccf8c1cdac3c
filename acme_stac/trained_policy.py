"""Loads trained policies and acts with them.

Needs JAX and Haiku, but neither Launchpad, Reverb, TensorFlow nor Acme.
"""

import dataclasses
import os
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_stac import checkpointing, environments
from acme_stac.checks import check_integer
from acme_stac.config import STACConfig
from acme_stac.core import conditioning, init_metaparams, squash
from acme_stac.environments import precision
from acme_stac.networks import (
  ActingState,
  make_networks,
  make_policy,
)
from acme_stac.policy_file import ActingParams, NetworkFactory, read


@dataclasses.dataclass
class EpisodeState:
  """A policy's memory of the current episodes; every action updates it.

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

  A policy can be copied and pickled, for example for another process.

  Attributes:
    config: the agent's hyperparameters.
    metadata: of the run: "agent", "environment", "environment_options",
      "environment_steps", and more of its config.json.
    metaparameters: of the self-tuned names, σ(η) or 2σ(η) as
      `metaparameter_range` says, one value per head, [P].
  """

  def __init__(
    self,
    config: STACConfig,
    environment_spec: Any,
    acting: ActingParams,
    metadata: dict[str, Any] | None = None,
    greedy: bool = False,
    network_factory: NetworkFactory = make_networks,
  ):
    """Makes a policy.

    Args:
      config: the agent's hyperparameters.
      environment_spec: specs of one environment.
      acting: parameters and metaparameters.
      metadata: of the run.
      greedy: act by the distribution's mode instead of a sample.
      network_factory: makes the agent's networks.
    """
    self.config = config
    self.metadata = metadata or {}
    squashed = squash(acting.metaparams, config)
    self.metaparameters = {
      name: np.asarray(squashed[name]) for name in config.self_tuned
    }
    self._greedy = greedy
    self._network_factory = network_factory
    self._spec = environment_spec
    self._params = acting.params
    self._conditioning = conditioning(acting.metaparams, config)
    self._key = jax.random.PRNGKey(0)
    self._compile()

  def _compile(self):
    networks = self._network_factory(self._spec, self.config)
    self._policy = make_policy(networks, self.config, self._greedy)
    self._select = jax.jit(self._policy.select_action)

  def __getstate__(self) -> dict[str, Any]:
    state = vars(self).copy()
    del state["_policy"], state["_select"]
    return state

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    self._compile()

  def initial_state(
    self, num_environments: int | None = None, seed: int | None = None
  ) -> EpisodeState:
    """Returns the state before an episode.

    Args:
      num_environments: size N of a batch, whose observations and actions are
        [N, ...]; None for one environment.
      seed: seed of the samples. Without it, every state has samples of its
        own, which repeat when the policy is loaded again.

    Raises:
      ValueError: if there are no environments.
    """
    number = 1 if num_environments is None else num_environments
    check_integer("num_environments", number, 1)
    _check_not_traced()
    if seed is None:
      self._key, key = jax.random.split(self._key)
    else:
      key = jax.random.PRNGKey(seed)
    return EpisodeState(
      np.ones([number], bool), self._policy.initial_state(number), key,
      num_environments is None,
    )

  def __call__(self, observation: Any, state: EpisodeState) -> np.ndarray:
    """Returns the environment's next action and updates the state.

    Args:
      observation: as the environment gives it; [N, ...] for a batch.
      state: made by `initial_state`.

    Raises:
      ValueError: if the observation does not conform to the environment's spec,
        or inside a function that JAX traces (use `act` there). The state is
        unchanged then.
    """
    _check_not_traced()
    if not isinstance(state, EpisodeState):
      raise ValueError(
        f"state must be what initial_state() gave, got {type(state).__name__}."
        " That of initial_act_state() is for policy.act."
      )
    begins, number = np.array(state.begins, bool), len(state.head)
    if begins.shape != (number,):
      raise ValueError(
        f"begins must have the shape ({number},), got {begins.shape}."
      )
    # By the spec: a list may be an array of one part.
    observation = jax.tree_util.tree_map(
      lambda _, part: np.asarray(part),
      self._spec.observations, self._select_parts(observation),
    )
    observation = precision.narrow(observation)
    if state._single:
      observation = jax.tree_util.tree_map(lambda x: x[None], observation)
    step_type = np.where(
      begins, dm_env.StepType.FIRST, dm_env.StepType.MID
    ).astype(np.int32)
    action, _, state._acting, state._key = self._select(
      self._params,
      self._conform(observation, number),
      step_type,
      state._acting,
      state._key,
      self._conditioning,
    )
    state.begins = np.zeros_like(begins)
    actions = self._policy.to_environment(np.asarray(action))
    return actions[0] if state._single else actions

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
      state: made by `initial_act_state` or the step before. Mark the start of
        episodes with `state._replace(begins=...)`.
      key: key of the samples; a fresh one for every step.

    Returns:
      The environments' actions [N, ...], and the state.

    Raises:
      ValueError: if the observation does not conform to the environment's spec.
    """
    number = state.begins.shape[0]
    observation = jax.tree_util.tree_map(
      lambda _, part: jnp.asarray(part),
      self._spec.observations, self._select_parts(observation),
    )
    first, mid = int(dm_env.StepType.FIRST), int(dm_env.StepType.MID)
    action, _, acting, _ = self._policy.select_action(
      self._params,
      self._conform(observation, number),
      jnp.where(state.begins, first, mid),
      state.acting,
      key,
      self._conditioning,
    )
    actions = self._policy.to_environment(jnp.asarray(action))
    return actions, ActState(acting, jnp.zeros([number], bool))

  def _select_parts(self, observation: Any) -> Any:
    """Returns the parts that the spec names; others, of any type, may exist."""
    try:
      return environments.nests.select(self._spec.observations, observation)
    except (LookupError, TypeError) as error:
      raise ValueError(
        "The observation does not have the parts that this policy was trained"
        f" on, {self._spec.observations}."
      ) from error

  def _conform(self, observation: Any, number: int) -> Any:
    """Returns [N, ...] arrays with the spec's dtypes; checks their shapes."""
    leaves = jax.tree_util.tree_leaves(observation)
    specs, structure = jax.tree_util.tree_flatten(self._spec.observations)
    wanted = [(number, *spec.shape) for spec in specs]
    if [leaf.shape for leaf in leaves] != wanted:
      raise ValueError(
        f"The observation has shapes {[leaf.shape for leaf in leaves]} for"
        f" {number} environments, but this policy was trained on {wanted}."
      )
    leaves = [
      leaf.astype(spec.dtype) if leaf.dtype != spec.dtype else leaf
      for leaf, spec in zip(leaves, specs, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, leaves)

  def make_environment(
    self, seed: int = 0, allow_import: bool = False, **options: Any
  ) -> dm_env.Environment:
    """Makes the environment that the policy was trained in.

    Args:
      seed: seed of the environment.
      allow_import: whether the policy's file may choose code to import, as
        python:<module>:<factory> and gymnasium:<module>:<id> do. Allow it only
        for files that you trust.
      **options: override the options of the run.

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
        f"The policy's environment imports code: {name!r} with options"
        f" {options}. Pass allow_import=True if you trust the file."
      )
    return environments.make(name, seed, **options)


def _check_not_traced():
  """Raises ValueError inside a function that JAX is tracing."""
  if isinstance(jnp.zeros(()), jax.core.Tracer):
    raise ValueError(
      "A policy that changes its state cannot be called inside jax.jit,"
      " jax.lax.scan and the like: use policy.act(observation, state, key) with"
      " policy.initial_act_state(n) there."
    )


def load_policy(
  path: str | os.PathLike,
  greedy: bool = False,
  network_factory: NetworkFactory | None = None,
) -> TrainedPolicy:
  """Loads a trained policy.

  Args:
    path: a work directory, whose newest checkpoint is read; or a file, one of
      its checkpoints or the output of `export_policy`.
    greedy: act by the distribution's mode instead of a sample.
    network_factory: the factory of the networks, if the run had its own. A
      file never chooses code to run.

  Raises:
    CheckpointError: (a ValueError) if there is no policy, or it is damaged.
    ValueError: if `network_factory` is needed.
  """
  path, arrays, metadata = read(path)
  if network_factory is None and metadata.get("networks"):
    raise ValueError(
      f"{path} was trained with networks of {metadata['networks']!r}: pass that"
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
      lambda: ActingParams(
        networks.init(jax.random.PRNGKey(0)), init_metaparams(config)
      )
    )
  except Exception as error:  # Whatever wrong metadata raise; chained.
    raise checkpointing.CheckpointError(
      f"{path} does not say how its agent was made, or another version of"
      f" acme_stac wrote it: {type(error).__name__}: {error}"
    ) from error
  try:
    acting = checkpointing.fit(path, arrays, template)
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
  return TrainedPolicy(
    config, spec, acting, metadata, greedy, network_factory
  )


def _image_channels_before(spec: Any) -> dict[str, Any]:
  """Returns the image layout of older files, which lack the field."""
  leaves = jax.tree_util.tree_leaves(spec.observations)
  if len(leaves) != 1 or len(leaves[0].shape) != 3:
    return {}
  first = leaves[0].shape[0] < leaves[0].shape[2]
  return {"image_channels": "first" if first else "last"}
