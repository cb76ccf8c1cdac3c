"""The loop that acts, steps environments and updates, as pure functions.

This is the first of the two Podracer architectures (Anakin, Hessel et al.
2021): one compiled program holds the environments, the policy and the update.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp

from acme_stac.checks import unknown
from acme_stac.config import STACConfig
from acme_stac.core import conditioning, make_update
from acme_stac.core.types import (
  Array,
  CoreState,
  Metrics,
  TrainingState,
  Trajectory,
)
from acme_stac.networks import ActingState, Policy, STACNetworks, make_policy
from acme_stac.on_device.environment import Environment, State

# Fields of STACConfig that may be arrays, so that runs of one program differ
# in them. The others determine shapes, or what is computed.
HYPERPARAMETERS = (
  "discount",
  "lambda_",
  "alpha",
  "value_cost",
  "policy_cost",
  "entropy_cost",
  "kl_cost",
  "bootstrap_value_cost",
  "clip_rho_threshold",
  "clip_c_threshold",
  "metaparameter_init",
  "meta_learning_rate",
  "meta_b1",
  "meta_b2",
  "meta_eps",
  "learning_rate",
  "final_learning_rate",
  "rmsprop_decay",
  "rmsprop_eps",
  "max_gradient_norm",
  "reward_scale",
  "max_abs_reward",
)


class Episodes(NamedTuple):
  """N environments in the middle of their episodes.

  Attributes:
    state: the environments' states, nest of [N, ...].
    timestep: their newest time steps, [N, ...].
    episode_return: sum of the rewards of the running episodes, [N].
    length: actions of the running episodes, [N] int32.
  """

  state: State
  timestep: dm_env.TimeStep
  episode_return: Array
  length: Array


class Ended(NamedTuple):
  """Sums over episodes that have ended, scalars."""

  episodes: Array
  episode_return_sum: Array
  episode_length_sum: Array


class _Rows(NamedTuple):
  """Steps with the decisions there; leaves of [rows, N, ...]."""

  timestep: dm_env.TimeStep
  action: Array
  log_prob: Array
  core_state: CoreState


class LoopState(NamedTuple):
  """Everything that the loop changes, and its hyperparameters.

  Attributes:
    training: state of the update.
    environments: the N environments.
    acting: the policy's state in them.
    key: for actions and environments.
    hyperparameters: values that replace those of the configuration, by name.
    overlap: rows that the next trajectory begins with.
    ahead: the batch that the next update learns from, if it is collected one
      update ahead (`outer_batch` "next"); otherwise ().
  """

  training: TrainingState
  environments: Episodes
  acting: ActingState
  key: Array
  hyperparameters: dict[str, Array]
  overlap: _Rows | tuple[()] = ()
  ahead: Trajectory | tuple[()] = ()


class Trainer(NamedTuple):
  """Training as pure functions, to be transformed and jitted by the caller.

  All of them can be vmapped: over keys, which gives independent seeds, and over
  hyperparameters.

  Attributes:
    init: (key, hyperparameters) -> LoopState. `hyperparameters` maps names in
      `HYPERPARAMETERS` to scalars that replace those of the configuration; by
      default none. Their ranges are not checked.
    resume: (TrainingState, key, hyperparameters) -> LoopState. Continues from a
      state of training, with fresh episodes.
    collect: LoopState -> (LoopState, Trajectory [T+1, B], Ended). The
      experience of one batch, as `train` collects it.
    train: (LoopState, number of updates) -> (LoopState, metrics). The number is
      static. Metrics are those of `core.make_update` and the `episodes` that
      ended in the experience collected for an update, with
      `episode_return_sum` and `episode_length_sum`; each is stacked over the
      updates, [num_updates, ...].
  """

  init: Callable[..., LoopState]
  resume: Callable[..., LoopState]
  collect: Callable[[LoopState], tuple[LoopState, Trajectory, Ended]]
  train: Callable[[LoopState, int], tuple[LoopState, Metrics]]


def make_trainer(
  environment: Environment,
  networks: STACNetworks,
  config: STACConfig,
  num_environments: int | None = None,
) -> Trainer:
  """Returns the training of an agent in an environment written in JAX.

  Actions of an update's trajectories are those of the newest parameters: unless
  trajectories overlap or are collected ahead, learning is on-policy.

  Args:
    environment: the environment.
    networks: the agent's networks, for the environment's specs.
    config: the agent's configuration.
    num_environments: environments N that step together. Must divide the batch
      size, and is the batch size by default; with fewer, a batch is made of
      consecutive trajectories.

  Raises:
    ValueError: if `num_environments` does not divide the batch size.
  """
  number = config.batch_size if num_environments is None else num_environments
  if number < 1 or config.batch_size % number:
    raise ValueError(
      f"num_environments ({number}) must divide batch_size"
      f" ({config.batch_size}): a batch is made of whole trajectories of all"
      " environments."
    )
  loop = _Loop(environment, networks, config, number)
  return Trainer(loop.init, loop.resume, loop.collect, loop.train)


def replace_hyperparameters(
  config: STACConfig, hyperparameters: Mapping[str, Any]
) -> STACConfig:
  """Returns a configuration with other hyperparameters, which may be arrays.

  Raises:
    ValueError: for a name that is not in `HYPERPARAMETERS`, or that the
      configuration has switched off.
  """
  replaced = copy.copy(config)
  for name, value in hyperparameters.items():
    if name not in HYPERPARAMETERS:
      raise ValueError(
        unknown("hyperparameter that may vary", name, HYPERPARAMETERS)
      )
    if getattr(config, name) is None:
      raise ValueError(
        f"{name} is None, that is off, in the configuration, so it cannot vary:"
        " give it a number there."
      )
    # Instances are immutable and check plain numbers only.
    object.__setattr__(replaced, name, value)
  return replaced


class _Loop:
  """The functions of a `Trainer`."""

  def __init__(
    self,
    environment: Environment,
    networks: STACNetworks,
    config: STACConfig,
    num_environments: int,
  ):
    self._environment = environment
    self._networks = networks
    self._config = config
    self._num_environments = num_environments
    self._policy: Policy = make_policy(networks, config)

  def init(
    self, key: Array, hyperparameters: Mapping[str, Any] | None = None
  ) -> LoopState:
    """Returns the state before the first update."""
    params_key, key = jax.random.split(key)
    config = replace_hyperparameters(self._config, hyperparameters or {})
    training = make_update(self._networks, config).init(params_key)
    return self.resume(training, key, hyperparameters)

  def resume(
    self,
    training: TrainingState,
    key: Array,
    hyperparameters: Mapping[str, Any] | None = None,
  ) -> LoopState:
    """Returns the state from which training continues in fresh episodes."""
    hyperparameters = hyperparameters or {}
    replace_hyperparameters(self._config, hyperparameters)  # Checks the names.
    reset_key, key = jax.random.split(key)
    state = LoopState(
      training,
      start_episodes(self._environment, reset_key, self._num_environments),
      self._policy.initial_state(self._num_environments),
      key,
      {name: jnp.asarray(x, float) for name, x in hyperparameters.items()},
    )
    if self._config.trajectory_overlap:
      state, rows, _ = self._act(state, self._config.trajectory_overlap)
      state = state._replace(overlap=rows)
    if self._config.batches_ahead:
      state, trajectory, _ = self.collect(state)
      state = state._replace(ahead=trajectory)
    return state

  def train(
    self, state: LoopState, num_updates: int
  ) -> tuple[LoopState, Metrics]:
    """Returns the state after so many updates, and their metrics."""
    return jax.lax.scan(
      lambda state, _: self._update(state), state, None, length=num_updates
    )

  def _update(self, state: LoopState) -> tuple[LoopState, Metrics]:
    """Collects the experience of an update and learns from it."""
    config = replace_hyperparameters(self._config, state.hyperparameters)
    update = make_update(self._networks, config).update
    state, newest, ended = self.collect(state)
    if config.batches_ahead:
      assert isinstance(state.ahead, Trajectory)
      batches = [state.ahead, newest]
      state = state._replace(ahead=newest)
    elif config.batches_per_update == 2:
      state, held_out, more = self.collect(state)
      ended = jax.tree_util.tree_map(jnp.add, ended, more)
      batches = [newest, held_out]
    else:
      batches = [newest]
    training, metrics = update(state.training, *batches)
    return state._replace(training=training), {**metrics, **ended._asdict()}

  def collect(
    self, state: LoopState
  ) -> tuple[LoopState, Trajectory, Ended]:
    """Returns the next state, a batch [T+1, B], and which episodes ended."""
    parts = []
    ended = Ended(jnp.int32(0), jnp.float32(0.0), jnp.int32(0))
    for _ in range(self._config.batch_size // self._num_environments):
      state, trajectory, more = self._collect_trajectories(state)
      ended = jax.tree_util.tree_map(jnp.add, ended, more)
      parts.append(trajectory)
    if len(parts) == 1:
      return state, parts[0], ended
    batch = jax.tree_util.tree_map(
      lambda *leaves: jnp.concatenate(leaves, axis=1),
      *[part._replace(core_state=()) for part in parts],
    )
    core_state = jax.tree_util.tree_map(
      lambda *leaves: jnp.concatenate(leaves), *[p.core_state for p in parts]
    )
    return state, batch._replace(core_state=core_state), ended

  def _collect_trajectories(
    self, state: LoopState
  ) -> tuple[LoopState, Trajectory, Ended]:
    """Returns the next state, trajectories [T+1, N], and what ended."""
    overlap = self._config.trajectory_overlap
    before = state.overlap
    state, rows, ended = self._act(
      state, self._config.trajectory_length - overlap
    )
    if isinstance(before, _Rows):
      rows = jax.tree_util.tree_map(
        lambda *leaves: jnp.concatenate(leaves), before, rows
      )
      state = state._replace(
        overlap=jax.tree_util.tree_map(lambda x: x[-overlap:], rows)
      )
    # The row after the last transition has no action yet: the next parameters
    # choose it.
    timestep = jax.tree_util.tree_map(
      lambda rows, newest: jnp.concatenate([rows, newest[None]]),
      rows.timestep,
      state.environments.timestep,
    )
    action, log_prob = jax.tree_util.tree_map(
      lambda rows: jnp.concatenate([rows, jnp.zeros_like(rows[:1])]),
      (rows.action, rows.log_prob),
    )
    trajectory = Trajectory(
      observation=timestep.observation,
      action=action,
      reward=timestep.reward,
      discount=timestep.discount,
      step_type=timestep.step_type,
      behaviour_log_prob=log_prob,
      core_state=jax.tree_util.tree_map(lambda x: x[0], rows.core_state),
    )
    return state, trajectory, ended

  def _act(
    self, state: LoopState, num_rows: int
  ) -> tuple[LoopState, _Rows, Ended]:
    """Acts `num_rows` times in every environment."""
    params = state.training.params
    config = replace_hyperparameters(self._config, state.hyperparameters)
    embedded = conditioning(state.training.metaparams, config)

    def act(carry, _):
      environments, acting, key = carry
      timestep = environments.timestep
      action, log_prob, next_acting, key = self._policy.select_action(
        params, timestep.observation, timestep.step_type, acting, key, embedded
      )
      row = _Rows(timestep, action, log_prob, acting.core)
      key, step_key = jax.random.split(key)
      environments = step_episodes(
        self._environment,
        environments,
        self._policy.to_environment(action),
        step_key,
      )
      has_ended = environments.timestep.step_type == int(dm_env.StepType.LAST)
      ended = Ended(
        jnp.sum(has_ended, dtype=jnp.int32),
        jnp.sum(jnp.where(has_ended, environments.episode_return, 0.0)),
        jnp.sum(jnp.where(has_ended, environments.length, 0)),
      )
      return (environments, next_acting, key), (row, ended)

    carry, (rows, ended) = jax.lax.scan(
      act, (state.environments, state.acting, state.key), None, length=num_rows
    )
    environments, acting, key = carry
    state = state._replace(environments=environments, acting=acting, key=key)
    return state, rows, jax.tree_util.tree_map(lambda x: jnp.sum(x, 0), ended)


def start_episodes(
  environment: Environment, key: Array, num_environments: int
) -> Episodes:
  """Starts an episode in each of N environments."""
  state, timestep = jax.vmap(environment.reset)(
    jax.random.split(key, num_environments)
  )
  return Episodes(
    state,
    timestep,
    jnp.zeros([num_environments], jnp.float32),
    jnp.zeros([num_environments], jnp.int32),
  )


def step_episodes(
  environment: Environment, episodes: Episodes, action: Array, key: Array
) -> Episodes:
  """Steps N environments; after a LAST step, starts an episode instead.

  Args:
    environment: the environment.
    episodes: of the N environments.
    action: the environments' actions, [N, ...], ignored after a LAST step.
    key: split over the environments.
  """

  def step(state, timestep, action, key):
    has_ended = timestep.step_type == int(dm_env.StepType.LAST)
    return jax.tree_util.tree_map(
      lambda fresh, next_one: jnp.where(has_ended, fresh, next_one),
      environment.reset(key),
      environment.step(state, action, key),
    )

  state, timestep = jax.vmap(step)(
    episodes.state,
    episodes.timestep,
    action,
    jax.random.split(key, episodes.length.shape[0]),
  )
  is_first = timestep.step_type == int(dm_env.StepType.FIRST)
  return Episodes(
    state,
    timestep,
    jnp.where(is_first, 0.0, episodes.episode_return + timestep.reward),
    jnp.where(is_first, 0, episodes.length + 1),
  )
