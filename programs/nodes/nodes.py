"""What the nodes of the program do, apart from how they are launched.

Node functions take plain data and clients, and import the heavy packages
themselves: a process loads only what its node needs.
"""

import collections
import faulthandler
import logging
import os
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from acme_stac.evaluation.text import counted
from programs.nodes.calls import EndedError, NotReadyError, Publisher
from programs.nodes.failures import FailureLimit
from programs.run.experiment import Experiment

# Variables wait this long for a learner that is still starting.
_VARIABLES_TIMEOUT_SECONDS = 5.0
# How often the learner looks whether its work directory is still there.
_WORKDIR_SECONDS = 1.0
# An actor that waited for longer than this fetches parameters again.
_STALE_SECONDS = 0.005
# The learner tells of its state again after this, for those started anew, and
# actors ask so often whether the run is finished.
_REPEAT_SECONDS = 2.0
# Least time between two looks at the queues.
_LOOK_SECONDS = 1.0
# An actor gives up when its environments failed more often than that in so many
# seconds.
_ENVIRONMENT_FAILURES = (5, 600.0)
# Exit code of a process whose environment hangs, which a new process may mend.
EXIT_HUNG = 75


class HopelessError(Exception):
  """What a node cannot go on from, and a new process could not either."""


class VariableServer:
  """Holds the newest parameters, so that actors never ask the learner.

  The learner sends each version once, however many actors there are.
  """

  def __init__(self):
    self._variables: dict[str, Any] = {}
    self._changed = threading.Condition()

  def put(self, pickled_variables: bytes):
    """Takes the learner's newest variables, a pickled dict.

    Arrays hang a courier call when they are among its arguments (of results
    they do not), so they travel as bytes.
    """
    variables = pickle.loads(pickled_variables)
    with self._changed:
      self._variables = variables
      self._changed.notify_all()

  def get_variables(self, names: Sequence[str]) -> list[Any] | None:
    """Returns variables by name; None if there are none yet, after a wait."""
    with self._changed:
      if not self._changed.wait_for(
        lambda: self._variables, _VARIABLES_TIMEOUT_SECONDS
      ):
        # Courier would log the traceback of an exception in every run.
        return None
      return [self._variables[name] for name in names]


class VariableSource:
  """Client of a variable server that is asked until it has variables."""

  def __init__(self, client: Any):
    """Makes a source.

    Args:
      client: of `VariableServer`.
    """
    self._client = client

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name.

    Raises:
      NotReadyError: if the learner has not sent any yet.
    """
    variables = self._client.get_variables(names)
    if variables is None:
      raise NotReadyError("The learner has not sent parameters yet.")
    return variables


def make_tables(experiment: Experiment) -> list[Any]:
  """Returns the tables of the replay node."""
  return make_builder(experiment, lambda: False).make_replay_tables(
    experiment.environment_spec
  )


def make_builder(
  experiment: Experiment, should_stop: Callable[[], bool], **devices: Any
) -> Any:
  """Returns the builder of a run; `devices` are those of `STACBuilder`."""
  from acme_stac.agent import builder

  return builder.STACBuilder(
    experiment.config,
    network_factory=experiment.network_factory,
    environments_per_actor=experiment.environments_per_actor,
    num_queues=experiment.num_queues,
    log_every_seconds=experiment.log_every_seconds,
    should_stop=should_stop,
    **devices,
  )


def _random_key(experiment: Experiment, step: int, *path: int) -> Any:
  """Returns a key of a part of the run; a resumed run gets others."""
  import jax

  key = jax.random.PRNGKey(experiment.seed)
  for number in (step, *path):
    key = jax.random.fold_in(key, number)
  return key


def _environment_seed(experiment: Experiment, step: int, *path: int) -> int:
  import jax

  key = _random_key(experiment, step, *path)
  # Members of a batch are seeded with consecutive numbers.
  return int(jax.random.randint(key, (), 0, 2**30))


_LEARNER, _ACTOR, _EVALUATOR = range(3)


def _end_hung_process(description: str):
  """Ends this process, whose environment cannot be ended any other way."""
  print(f"{description}\nIts threads were at:", file=sys.stderr, flush=True)
  faulthandler.dump_traceback(sys.stderr)
  sys.stderr.flush()
  os._exit(EXIT_HUNG)


def _make_guarded(
  experiment: Experiment, num_environments: int, seed: int
) -> Any:
  """Makes a batch of the run's environment under guard."""
  from acme_stac.environments import (
    EnvironmentFailedError,
    GuardedEnvironment,
  )

  try:
    environment = experiment.make_environment(num_environments, seed)
  except (SystemExit, KeyboardInterrupt) as error:
    raise EnvironmentFailedError(
      f"The environment raised {type(error).__name__}: {error}, while it was"
      " made."
    ) from error
  return GuardedEnvironment(
    environment,
    experiment.environment_timeout_seconds,
    _end_hung_process,
  )


class Learner:
  """The learner with its checkpoints and the way to the variable server."""

  def __init__(
    self,
    experiment: Experiment,
    replay: Any,
    counter: Any,
    send_variables: Callable[[bytes], Any] | None,
    should_stop: Callable[[], bool],
    devices: Sequence[Any] | None = None,
    by_steps_only: bool = False,
  ):
    """Makes the learner and restores the newest checkpoint.

    Args:
      experiment: the run.
      replay: Reverb clients, or the queue of this process.
      counter: `RunCounter` or a client of it.
      send_variables: sends variables to the variable server. None if actors
        get them from this object.
      should_stop: whether the program is ending.
      devices: to learn on; all local ones by default.
      by_steps_only: write checkpoints after so many updates, whatever the time.
    """
    from acme_stac import checkpointing
    from programs.nodes import logs
    from programs.run import workdir

    self._experiment = experiment
    self._counter = counter
    self._replay = replay
    self._send_variables = send_variables
    self._by_steps_only = by_steps_only
    # A run of one thread publishes in that thread.
    self._publisher: Publisher | None = None
    self._episode_return = float("nan")
    self._should_stop = should_stop
    builder = make_builder(experiment, self._stopping, learner_devices=devices)
    networks = builder.make_networks(experiment.environment_spec)
    self._dataset = builder.make_dataset_iterator(replay)
    self._logger = logs.Enriched(
      logs.make_logger(experiment, "learner", dashboards=True),
      lambda: {"episode_return": self._episode_return},
    )
    self._learner = builder.make_learner(
      _random_key(experiment, 0, _LEARNER),
      networks,
      self._dataset,
      logger_fn=lambda unused_label: self._logger,
      environment_spec=experiment.environment_spec,
      replay_client=replay,
    )
    try:
      restored = checkpointing.load(
        experiment.checkpoints, self._learner.save()
      )
    except checkpointing.CheckpointError as error:
      raise HopelessError(f"The learner cannot begin. {error}") from error
    self._metadata: dict[str, Any] = {"training_seconds": 0.0, "number": 0}
    if restored:
      state, metadata = restored
      self._metadata.update(metadata)
      self._learner.restore(state)
    self._initial_step = self._learner.num_steps
    self._last_look = float("-inf")
    # What had come by the last look, if more was waited for.
    self._waited_after: int | None = None
    self._started = time.monotonic()
    self._last_checkpoint = self._started
    self._last_saved_step = self._learner.num_steps
    self._saves = self._metadata["number"]
    self._workdir = workdir.Watch(experiment.workdir)
    self._removed: HopelessError | None = None
    self._next_look = self._started + _WORKDIR_SECONDS

  def _stopping(self) -> bool:
    failed = self._publisher is not None and self._publisher.failed
    return failed or self._should_stop()

  @property
  def done(self) -> bool:
    """Whether all updates of the run are done."""
    return self._learner.num_steps >= self._experiment.config.num_updates

  @property
  def saved_step(self) -> int:
    """Updates that the newest checkpoint has; 0 if there is none."""
    return self._last_saved_step

  def step(self) -> bool:
    """Does one update; returns False if there is no more data.

    Raises:
      HopelessError: if the work directory has been removed.
    """
    now = time.monotonic()
    if now >= self._next_look:
      self._next_look = now + _WORKDIR_SECONDS
      self._check_workdir()
    try:
      self._learner.step()
    except StopIteration:
      return False
    if self._publisher is None:
      self.publish()
    else:
      self._publisher.notify()
    if self._checkpoint_is_due():
      self.save_if_possible()
    return True

  def _checkpoint_is_due(self) -> bool:
    experiment = self._experiment
    step = self._learner.num_steps
    if step % experiment.checkpoint_every_updates == 0:
      return True
    since = time.monotonic() - self._last_checkpoint
    # A run that is to be repeatable does nothing by the clock.
    return not self._by_steps_only and (
      since >= experiment.checkpoint_every_seconds
    )

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns the newest variables by name, on the learner's devices."""
    return self._learner.device_variables(names)

  def publish(self):
    """Sends the newest parameters, then tells the counter what they consumed.

    The counter lets the actors go on, which shall find the parameters there.
    """
    from acme_stac.agent import learning

    if self._send_variables is None:
      (version,) = self._learner.get_variables(["version"])
    else:
      names = learning.variable_names(self._experiment.config)
      values = self._learner.get_variables(names)
      version = values[names.index("version")]
      self._send_variables(
        pickle.dumps(dict(zip(names, values, strict=True)))
      )
    config = self._experiment.config
    taken, queued, starving = self._look_at_data()
    steps = config.steps_per_trajectory
    mean_return = self._counter.report_learner(
      int(version) * config.steps_per_update,
      self._dataset.num_dropped * steps,
      self._initial_step * config.steps_per_update + taken * steps,
      None if queued is None else queued * steps,
      starving,
    )
    if mean_return is not None:
      self._episode_return = mean_return

  def _look_at_data(self) -> tuple[int, int | None, bool]:
    """Returns the trajectories received and queued, and whether it starves.

    The queues are looked at every so often; None are queued in between. Two
    looks in a row at empty queues between which nothing came are starvation.
    """
    from acme_stac.agent import queues

    # What is on its way from the queues counts as neither, not as both.
    taken = self._dataset.num_taken
    waiting = self._dataset.waiting
    now = time.monotonic()
    if now - self._last_look < _LOOK_SECONDS:
      return taken, None, False
    items = queues.num_items_in(self._replay)
    starving = waiting and items == 0 and taken == self._waited_after
    self._waited_after = taken if waiting and items == 0 else None
    self._last_look = time.monotonic()
    if items is None:
      return taken, None, False
    return taken, items * self._experiment.environments_per_actor, starving

  def save_if_possible(self):
    """Writes a checkpoint; a full disk must not end the run."""
    try:
      self.save()
    except OSError as error:
      logging.warning(
        "The checkpoint could not be written (%s); training goes on, and the"
        " next attempt is in %g s.",
        error, self._experiment.checkpoint_every_seconds,
      )

  def _check_workdir(self):
    """Raises HopelessError if the work directory has been removed.

    What is needed to resume is written again first, unless another run is there
    now. The logs are open in all processes and cannot be.
    """
    if self._removed is not None:
      raise self._removed
    if self._workdir.is_intact():
      return
    self._removed = self._rescue()
    raise self._removed

  def _rescue(self) -> HopelessError:
    """Writes a removed work directory again; returns what to raise."""
    from programs.run import experiment as experiment_lib

    where = self._experiment.workdir
    if self._workdir.is_anothers():
      return HopelessError(
        f"{where} has been replaced by that of another run, so this run was"
        " stopped. What it learned in"
        f" {counted(self._learner.num_steps, 'update')} is lost."
      )
    try:
      where.mkdir(parents=True, exist_ok=True)
      experiment_lib.write_config(self._experiment)
      self._write_checkpoint()
    except OSError as error:
      return HopelessError(
        f"{where} was removed during training and cannot be written again"
        f" ({error}), so the run was stopped."
      )
    return HopelessError(
      f"{where}, or a part of it, was removed during training, so the run was"
      " stopped. config.json and a checkpoint after"
      f" {counted(self._learner.num_steps, 'update')} have been written again;"
      " logs that were removed are lost."
    )

  def save(self):
    """Writes a checkpoint unless the newest one is of this step.

    Raises:
      HopelessError: if the work directory has been removed.
      OSError: if it cannot be written.
    """
    self._check_workdir()
    if self._learner.num_steps != self._last_saved_step:
      self._write_checkpoint()

  def _write_checkpoint(self):
    from acme_stac import checkpointing

    self._last_checkpoint = time.monotonic()
    step = self._learner.num_steps
    experiment = self._experiment
    seconds = self._last_checkpoint - self._started
    checkpointing.save(
      experiment.checkpoints,
      step,
      self._learner.save(),
      {
        **experiment.to_json(),
        "number": self._saves + 1,
        "training_seconds": self._metadata["training_seconds"] + seconds,
        "environment_steps": step * experiment.config.steps_per_update,
      },
      keep=experiment.checkpoints_to_keep,
      keep_one_in=experiment.checkpoints_keep_one_in,
    )
    self._saves += 1
    self._last_saved_step = step

  def close(self):
    """Writes the last checkpoint and closes the log.

    Raises:
      HopelessError: if the checkpoint cannot be written.
    """
    try:
      self.save()
    except OSError as error:
      raise HopelessError(
        f"The last checkpoint could not be written: {error}. What was learned"
        " since the one before is lost."
      ) from error
    finally:
      self._logger.close()

  def run(self):
    """Learns to the end of the budget, or until the program is stopped."""
    try:
      self.publish()
    except EndedError:
      return
    self._publisher = Publisher(self.publish, _REPEAT_SECONDS)
    try:
      while not self.done and not self._stopping():
        if not self.step():
          break
    finally:
      try:
        self.close()
      finally:
        self._publisher.close()
    if self.done:
      self._counter.finish()


class _Environments:
  """A node's environments, made again when they fail, within a limit.

  Attributes:
    failures: so far.
  """

  def __init__(
    self,
    make: Callable[[int], Any],
    seed: Callable[[int], int],
  ):
    """Makes nothing yet.

    Args:
      make: makes guarded environments from a seed.
      seed: of the environments with a number; they are numbered as they are
        made.
    """
    self._make = make
    self._seed = seed
    self._number = 0
    self._limit = FailureLimit(*_ENVIRONMENT_FAILURES)
    self.failures = 0

  def make(self) -> Any:
    """Makes the next environments."""
    environment = self._make(self._seed(self._number))
    self._number += 1
    return environment

  def failed(self, environment: Any, error: Exception):
    """Takes that environments failed.

    Raises:
      HopelessError: if that was too often.
    """
    self.failures += 1
    environment.close()
    if not self._limit.add():
      raise HopelessError(
        f"The environment failed {self._limit.count} times within"
        f" {self._limit.seconds:.0f} s. The last time: {error}"
      ) from error
    logging.warning("Environments are made again. %s", error)


class Actor:
  """An actor with its environments and logs."""

  def __init__(
    self,
    experiment: Experiment,
    index: int,
    replay: Any,
    variables: Any,
    counter: Any,
    should_stop: Callable[[], bool],
    device: Any = None,
  ):
    """Makes an actor, when the learner has sent parameters.

    Args:
      experiment: the run.
      index: which actor.
      replay: Reverb client, or the queue of this process.
      variables: has `get_variables`.
      counter: `RunCounter` or a client of it.
      should_stop: whether the program is ending.
      device: of inference; the CPU by default.
    """
    from acme_stac import environment_loop
    from programs.nodes import logs

    self._experiment = experiment
    self._index = index
    # Two processes that are one actor, one after the other, are told apart.
    self._life = uuid.uuid4().hex
    self._items = 0
    self._counter = counter
    self._finished = False
    # What waits for room in a queue that nobody empties any more stops too.
    self._should_stop = lambda: self._finished or should_stop()
    builder = make_builder(
      experiment, self._should_stop, inference_device=device
    )
    spec = experiment.environment_spec
    networks = builder.make_networks(spec)
    policy = builder.make_policy(networks, spec)
    # An actor that was started anew does not repeat what it did before.
    (version,) = variables.get_variables(["version"])
    self._environments = _Environments(
      lambda seed: _make_guarded(
        experiment, experiment.environments_per_actor, seed
      ),
      lambda number: _environment_seed(
        experiment, int(version), _ACTOR, index, *[number] * bool(number)
      ),
    )
    self._environment = self._environments.make()
    self._adder = builder.make_adder(replay, spec, policy)
    self._actor = builder.make_actor(
      _random_key(experiment, int(version), _ACTOR, index),
      policy,
      spec,
      variables,
      self._adder,
    )
    self._loop = environment_loop.BatchedEnvironmentLoop(
      self._environment, self._actor
    )
    self._steps_per_item = (
      experiment.config.steps_per_trajectory
      * experiment.environments_per_actor
    )
    self._log = logs.make_logger(experiment, f"actor_{index}")
    self._episode_log = logs.make_logger(experiment, f"episodes_actor_{index}")
    self._episodes = collections.deque[float]()
    self._publisher: Publisher | None = None
    self._seconds_waiting = 0.0
    self._last_log = time.monotonic()
    self._last = self._totals()

  def run_item(self, wait_for_variables: bool = False) -> bool:
    """Makes one item for the queue.

    Args:
      wait_for_variables: fetch parameters in the foreground.

    Returns:
      False if the program is ending.

    Raises:
      HopelessError: if the environment failed too often.
    """
    from acme_stac.agent.adders import NonFiniteError
    from acme_stac.environments import EnvironmentFailedError

    items = self._adder.num_items
    episodes = []
    while self._adder.num_items == items:
      if self._should_stop():
        return False
      try:
        episodes += self._loop.step(wait_for_variables)
      except (EnvironmentFailedError, NonFiniteError) as error:
        if isinstance(error, NonFiniteError):
          error = self._environment.failure(str(error))
        self._environments.failed(self._environment, error)
        self._environment = self._environments.make()
        self._loop.replace_environment(self._environment)
    self._items += 1
    self._episodes.extend(episode.episode_return for episode in episodes)
    if self._publisher is None:
      self.publish()
    else:
      self._publisher.notify()
    for episode in episodes:
      self._episode_log.write({
        "actor_steps": self._loop.num_steps,
        "environment": self._experiment.environment,
        **episode._asdict(),
      })
    self._write_log()
    return True

  def close(self):
    """Frees the environments and closes the logs."""
    self._environment.close()
    self._log.close()
    self._episode_log.close()

  def publish(self):
    """Tells the counter of the episodes that ended since the last time.

    Its answer says whether the run is finished.
    """
    returns = [self._episodes.popleft() for _ in range(len(self._episodes))]
    self._finished = self._counter.report_episodes(returns)

  def _totals(self) -> dict[str, float]:
    return {
      "steps": self._loop.num_steps
      * self._experiment.environments_per_actor
      * self._experiment.config.action_repeat,
      "blocked": self._adder.seconds_blocked,
      "waiting": self._seconds_waiting,
      **self._loop.seconds,
    }

  def _write_log(self):
    now = time.monotonic()
    elapsed = now - self._last_log
    if elapsed < self._experiment.log_every_seconds:
      return
    totals = self._totals()
    delta = {name: totals[name] - self._last[name] for name in totals}
    self._log.write({
      "actor_environment_steps": totals["steps"],
      "environment_steps_per_second": delta["steps"] / elapsed,
      "share_environment": delta["environment"] / elapsed,
      "share_inference": delta["inference"] / elapsed,
      "share_writing": (delta["writing"] - delta["blocked"]) / elapsed,
      "share_blocked_by_queue": delta["blocked"] / elapsed,
      "share_waiting_for_learner": delta["waiting"] / elapsed,
      "environment_failures": self._environments.failures,
    })
    self._last_log, self._last = now, totals

  def run(self):
    """Makes items as the counter grants them, until the run is over."""
    self._actor.fetch_variables()
    self._publisher = Publisher(self.publish, _REPEAT_SECONDS)
    try:
      started = time.monotonic()
      while not self._should_stop() and not self._publisher.failed:
        granted = self._counter.reserve(
          self._index, self._life, self._items, self._steps_per_item
        )
        if granted == "finished":
          return
        if granted == "wait":
          continue
        waited = time.monotonic() - started
        self._seconds_waiting += waited
        # Parameters that came before a wait are stale after it, and where there
        # is time to wait there is time to fetch.
        if not self.run_item(wait_for_variables=waited > _STALE_SECONDS):
          return
        started = time.monotonic()
    finally:
      self._publisher.close()


class Evaluator:
  """Evaluates the newest parameters on fresh environments."""

  def __init__(
    self,
    experiment: Experiment,
    variables: Any,
    counter: Any,
    should_stop: Callable[[], bool],
    device: Any = None,
  ):
    """Makes an evaluator; arguments are those of `Actor`."""
    from acme_stac.agent import acting
    from programs.nodes import logs

    self._experiment = experiment
    self._counter = counter
    self._should_stop = should_stop
    self._num_environments = min(experiment.evaluation_episodes, 16)
    (version,) = variables.get_variables(["version"])
    self._initial_step = int(version)
    builder = make_builder(experiment, should_stop, inference_device=device)
    spec = experiment.environment_spec
    networks = builder.make_networks(spec)
    self._actor: acting.STACActor = builder.make_actor(
      _random_key(experiment, self._initial_step, _EVALUATOR),
      builder.make_policy(
        networks, spec, evaluation=experiment.evaluation_greedy
      ),
      spec,
      variables,
    )
    self._log = logs.make_logger(
      experiment, "evaluator", dashboards=True
    )
    self._environments = _Environments(
      lambda seed: _make_guarded(experiment, self._num_environments, seed),
      lambda number: _environment_seed(
        experiment, self._initial_step, _EVALUATOR, number
      ),
    )

  def evaluate(self):
    """Fetches parameters and runs the episodes of one evaluation.

    Raises:
      HopelessError: if the environment failed too often.
    """
    import numpy as np

    from acme_stac import environment_loop
    from acme_stac.environments import EnvironmentFailedError
    from acme_stac.evaluation import scores

    version = self._actor.fetch_variables()
    while True:
      environment = self._environments.make()
      try:
        evaluation = environment_loop.evaluate(
          environment,
          self._actor,
          self._experiment.evaluation_episodes,
          self._should_stop,
          self._experiment.evaluation_max_episode_steps,
        )
        episodes = evaluation.episodes if evaluation else []
        if not np.isfinite([e.episode_return for e in episodes]).all():
          raise environment.failure(
            "The environment gave a reward that is not finite."
          )
        break
      except EnvironmentFailedError as error:
        self._environments.failed(environment, error)
    environment.close()
    if evaluation is None:
      return
    returns = [episode.episode_return for episode in episodes]
    mean_return = float(np.mean(returns))
    row = {}
    if scores.game_of(self._experiment.environment) is not None:
      row["human_normalised_score"] = scores.normalised(
        self._experiment.environment, mean_return
      )
    self._log.write({
      **row,
      "environment_steps": version * self._experiment.config.steps_per_update,
      "learner_steps": version,
      "episodes": len(returns),
      "episodes_cut_off": evaluation.num_cut_off,
      "episode_return_mean": mean_return,
      "episode_return_std": float(np.std(returns)),
      "episode_return_min": float(np.min(returns)),
      "episode_return_max": float(np.max(returns)),
      "episode_length_mean": float(np.mean([e.length for e in episodes])),
      "greedy": int(self._experiment.evaluation_greedy),
    })
    self._counter.report_evaluation(
      mean_return, len(returns), evaluation.num_cut_off
    )

  def close(self):
    """Closes the log."""
    self._log.close()

  def run(self):
    """Evaluates every so many steps, and once more at the end."""
    every = self._experiment.evaluation_every_steps
    due = (
      self._initial_step * self._experiment.config.steps_per_update // every
    ) * every
    while not self._should_stop():
      status = self._counter.status()
      if status["finished"] or status["steps"] >= due:
        self.evaluate()
        due = (status["steps"] // every + 1) * every
      if status["finished"]:
        return
      time.sleep(0.2)
