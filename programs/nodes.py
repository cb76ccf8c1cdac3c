"""What the nodes of the program do, apart from how they are launched.

Node functions take plain data and clients, and import the heavy packages
themselves: a process loads only what its node needs.
"""

import collections
import logging
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from acme.utils import counting

from programs.experiment import Experiment

# Variables wait this long for a learner that is still starting.
_VARIABLES_TIMEOUT_SECONDS = 5.0
# A reservation that cannot be granted is answered after this time.
_RESERVE_TIMEOUT_SECONDS = 0.5
# Without an update or a grant for this long, what is under way counts as lost.
_LOST_SECONDS = 120.0
# An actor that waited for longer than this fetches parameters again.
_STALE_SECONDS = 0.005
_RETURN_WINDOW = 100


class RunCounter(counting.Counter):
  """Counts, grants environment steps, and knows when the run is over.

  Actors reserve the steps of every item before they make it, so that the run
  ends at its budget and not at the next look at a clock, and so that actors are
  never far ahead of the learner.
  """

  def __init__(
    self,
    budget: int,
    max_ahead: int,
    initial_steps: int = 0,
    held: int = 0,
  ):
    """Makes a counter.

    Args:
      budget: environment steps of the whole run.
      max_ahead: environment steps that may be on their way to the learner.
      initial_steps: environment steps that a resumed run has already done.
      held: environment steps that the learner holds beyond those that it has
        consumed, at the end too.
    """
    super().__init__()
    self._budget = budget
    self._max_ahead = max_ahead
    self._held = held
    self._initial = initial_steps
    self._reserved = initial_steps
    self._consumed = initial_steps
    self._finished = False
    self._last_change = time.monotonic()
    self._first_update: float | None = None
    self._returns: collections.deque[float] = collections.deque(
      maxlen=_RETURN_WINDOW
    )
    self._evaluation: float | None = None
    self._mutex = threading.Condition()

  def reserve(self, steps: int) -> str:
    """Asks for the environment steps of one more item.

    Returns:
      "go", "wait" (ask again: the learner has to catch up) or "finished".
    """

    def granted() -> bool:
      limit = min(self._budget, self._consumed + self._max_ahead)
      if self._reserved + steps <= limit + self._held:
        return True
      # Items that were lost on their way must not stop the run for ever.
      return time.monotonic() - self._last_change > _LOST_SECONDS

    with self._mutex:
      self._mutex.wait_for(
        lambda: self._finished or granted(), _RESERVE_TIMEOUT_SECONDS
      )
      if self._finished:
        return "finished"
      if not granted():
        return "wait"
      self._reserved += steps
      self._last_change = time.monotonic()
      return "go"

  def report_episodes(self, returns: Sequence[float]):
    """Takes the returns of episodes that ended."""
    with self._mutex:
      self._returns.extend(returns)

  def report_evaluation(self, mean_return: float):
    """Takes the mean return of an evaluation."""
    with self._mutex:
      self._evaluation = mean_return

  def report_learner(self, environment_steps: int) -> float | None:
    """Takes how many environment steps the learner has consumed.

    Returns:
      The mean return of the last episodes, None if there are none yet.
    """
    with self._mutex:
      if self._first_update is None:
        self._first_update = time.monotonic()
        self._initial = environment_steps
      self._consumed = environment_steps
      self._last_change = time.monotonic()
      self._mutex.notify_all()
      return self._mean_return()

  def _mean_return(self) -> float | None:
    return sum(self._returns) / len(self._returns) if self._returns else None

  def finish(self):
    """Says that the learner has done its last update."""
    with self._mutex:
      self._finished = True
      self._mutex.notify_all()

  def status(self) -> dict[str, Any]:
    """Returns what the progress line shows.

    `rate` is in environment steps per second since the first update.
    """
    with self._mutex:
      now = time.monotonic()
      since = now - (self._first_update or now)
      rate = (self._consumed - self._initial) / since if since > 0 else 0.0
      return {
        "steps": self._consumed,
        "budget": self._budget,
        "rate": rate,
        "return": self._mean_return(),
        "evaluation": self._evaluation,
        "finished": self._finished,
      }


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

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns variables by name.

    Raises:
      RuntimeError: if the learner has not sent any for some seconds.
    """
    with self._changed:
      if not self._changed.wait_for(
        lambda: self._variables, _VARIABLES_TIMEOUT_SECONDS
      ):
        raise RuntimeError("The learner has not sent parameters yet.")
      return [self._variables[name] for name in names]


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
    environments_per_actor=experiment.environments_per_actor,
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


def _retry(call: Callable[[], Any], should_stop: Callable[[], bool]) -> Any:
  """Calls until it succeeds: other nodes may still be starting."""
  while True:
    try:
      return call()
    except Exception:
      if should_stop():
        raise
      logging.info("Waiting for another node ...")
      time.sleep(0.2)


class _Publisher:
  """Tells others of the newest state, in a thread, so that work goes on.

  What is new while it talks is told in one go afterwards.
  """

  def __init__(
    self, publish: Callable[[], None], should_stop: Callable[[], bool]
  ):
    """Makes a publisher.

    Args:
      publish: tells of the state at its call.
      should_stop: whether the program is ending. Then the others may be gone
        first, and what `publish` raises is no error.
    """
    self._publish = publish
    self._should_stop = should_stop
    self._news = threading.Event()
    self._ended = False
    self._error: Exception | None = None
    self._thread = threading.Thread(
      target=self._run, daemon=True, name="publisher"
    )
    self._thread.start()

  @property
  def failed(self) -> bool:
    """Whether `publish` has raised; `close` raises the same."""
    return self._error is not None

  def notify(self):
    """Says that there is a new state."""
    self._news.set()

  def _run(self):
    while True:
      self._news.wait()
      self._news.clear()
      ended = self._ended
      try:
        self._publish()
      except Exception as error:
        if not self._should_stop():
          self._error = error
          return
      if ended:
        return

  def close(self):
    """Tells of the last state and ends.

    Raises:
      Exception: what `publish` raised.
    """
    self._ended = True
    self._news.set()
    self._thread.join()
    if self._error is not None:
      raise self._error


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
  ):
    """Makes the learner and restores the newest checkpoint.

    Args:
      experiment: the run.
      replay: Reverb client, or the queue of this process.
      counter: `RunCounter` or a client of it.
      send_variables: sends variables to the variable server; may return a
        future. None if actors get them from this object.
      should_stop: whether the program is ending.
      devices: to learn on; all local ones by default.
    """
    from acme_stac.agent import checkpointing
    from acme_stac.networks import make_networks
    from programs import logs

    self._experiment = experiment
    self._counter = counter
    self._send_variables = send_variables
    # A run of one thread publishes in that thread.
    self._publisher: _Publisher | None = None
    self._episode_return = float("nan")
    self._should_stop = should_stop
    builder = make_builder(experiment, self._stopping, learner_devices=devices)
    networks = make_networks(experiment.environment_spec, experiment.config)
    dataset = _retry(
      lambda: builder.make_dataset_iterator(replay), should_stop
    )
    self._learner = builder.make_learner(
      _random_key(experiment, 0, _LEARNER),
      networks,
      dataset,
      logger_fn=lambda label: logs.Enriched(
        logs.make_logger(experiment, label, tensorboard=True),
        lambda: {"episode_return": self._episode_return},
      ),
      environment_spec=experiment.environment_spec,
      replay_client=replay,
    )
    restored = checkpointing.load(
      experiment.checkpoints, self._learner.save()
    )
    self._metadata: dict[str, Any] = {"training_seconds": 0.0}
    if restored:
      state, self._metadata = restored
      self._learner.restore(state)
    self._started = time.monotonic()
    self._last_checkpoint = self._started
    self._last_saved_step = self._learner.num_steps

  def _stopping(self) -> bool:
    failed = self._publisher is not None and self._publisher.failed
    return failed or self._should_stop()

  @property
  def done(self) -> bool:
    """Whether all updates of the run are done."""
    return self._learner.num_steps >= self._experiment.config.num_updates

  def step(self) -> bool:
    """Does one update; returns False if there is no more data."""
    try:
      self._learner.step()
    except StopIteration:
      return False
    if self._publisher is None:
      self.publish()
    else:
      self._publisher.notify()
    now = time.monotonic()
    if (
      now - self._last_checkpoint >= self._experiment.checkpoint_every_seconds
    ):
      self._last_checkpoint = now
      try:
        self.save()
      except OSError as error:
        # A full disk must not end the run: the next attempt may succeed.
        logging.warning("The checkpoint could not be written: %s", error)
    return True

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
      sending = self._send_variables(
        pickle.dumps(dict(zip(names, values, strict=True)))
      )
      if sending is not None:
        sending.result()
    mean_return = self._counter.report_learner(
      int(version) * self._experiment.config.steps_per_update
    )
    if mean_return is not None:
      self._episode_return = mean_return

  def save(self):
    """Writes a checkpoint unless the newest one is of this step."""
    from acme_stac.agent import checkpointing

    step = self._learner.num_steps
    if step == self._last_saved_step:
      return
    seconds = time.monotonic() - self._started
    checkpointing.save(
      self._experiment.checkpoints,
      step,
      self._learner.save(),
      {
        **self._experiment.to_json(),
        "training_seconds": self._metadata["training_seconds"] + seconds,
        "environment_steps": step * self._experiment.config.steps_per_update,
      },
    )
    self._last_saved_step = step

  def run(self):
    """Learns to the end of the budget, or until the program is stopped."""
    self.publish()
    self._publisher = _Publisher(self.publish, self._should_stop)
    try:
      while not self.done and not self._stopping():
        if not self.step():
          break
    finally:
      self.save()
      self._publisher.close()
    if self.done:
      self._counter.finish()


class Actor:
  """An actor with its environments and logs."""

  def __init__(
    self,
    experiment: Experiment,
    index: int,
    initial_step: int,
    replay: Any,
    variables: Any,
    counter: Any,
    should_stop: Callable[[], bool],
    device: Any = None,
  ):
    """Makes an actor.

    Args:
      experiment: the run.
      index: which actor.
      initial_step: learner step at which the run was started or resumed.
      replay: Reverb client, or the queue of this process.
      variables: has `get_variables`.
      counter: `RunCounter` or a client of it.
      should_stop: whether the program is ending.
      device: of inference; the CPU by default.
    """
    from acme_stac.agent import environment_loop
    from acme_stac.networks import make_networks
    from programs import logs

    self._experiment = experiment
    self._counter = counter
    self._should_stop = should_stop
    environment = experiment.make_environment(
      experiment.environments_per_actor,
      _environment_seed(experiment, initial_step, _ACTOR, index),
    )
    builder = make_builder(experiment, should_stop, inference_device=device)
    spec = experiment.environment_spec
    networks = make_networks(spec, experiment.config)
    policy = builder.make_policy(networks, spec)
    self._adder = builder.make_adder(replay, spec, policy)
    self._actor = builder.make_actor(
      _random_key(experiment, initial_step, _ACTOR, index),
      policy,
      spec,
      variables,
      self._adder,
    )
    self._loop = environment_loop.BatchedEnvironmentLoop(
      environment, self._actor
    )
    self._steps_per_item = (
      experiment.config.steps_per_trajectory
      * experiment.environments_per_actor
    )
    self._log = logs.make_logger(experiment, f"actor_{index}")
    self._episode_log = logs.make_logger(experiment, f"episodes_actor_{index}")
    self._episodes = collections.deque[float]()
    self._publisher: _Publisher | None = None
    self._seconds_waiting = 0.0
    self._last_log = time.monotonic()
    self._last = self._totals()

  def run_item(self, wait_for_variables: bool = False) -> bool:
    """Makes one item for the queue.

    Args:
      wait_for_variables: fetch parameters in the foreground.

    Returns:
      False if the program is ending.
    """
    items = self._adder.num_items
    episodes = []
    while self._adder.num_items == items:
      if self._should_stop():
        return False
      episodes += self._loop.step(wait_for_variables)
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

  def publish(self):
    """Tells the counter of the episodes that ended since the last time."""
    returns = [self._episodes.popleft() for _ in range(len(self._episodes))]
    if returns:
      self._counter.report_episodes(returns)

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
    })
    self._last_log, self._last = now, totals

  def run(self):
    """Makes items as the counter grants them, until the run is over."""
    _retry(self._actor.fetch_variables, self._should_stop)
    self._publisher = _Publisher(self.publish, self._should_stop)
    try:
      started = time.monotonic()
      while not self._should_stop() and not self._publisher.failed:
        granted = self._counter.reserve(self._steps_per_item)
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
    initial_step: int,
    variables: Any,
    counter: Any,
    should_stop: Callable[[], bool],
    device: Any = None,
  ):
    """Makes an evaluator; arguments are those of `Actor`."""
    from acme_stac.agent import acting
    from acme_stac.networks import make_networks
    from programs import logs

    self._experiment = experiment
    self._counter = counter
    self._should_stop = should_stop
    self._num_environments = min(experiment.evaluation_episodes, 16)
    self._initial_step = initial_step
    builder = make_builder(experiment, should_stop, inference_device=device)
    spec = experiment.environment_spec
    networks = make_networks(spec, experiment.config)
    self._actor: acting.STACActor = builder.make_actor(
      _random_key(experiment, initial_step, _EVALUATOR),
      builder.make_policy(
        networks, spec, evaluation=experiment.evaluation_greedy
      ),
      spec,
      variables,
    )
    self._log = logs.make_logger(
      experiment, "evaluator", tensorboard=True
    )
    self._count = 0

  def evaluate(self):
    """Fetches parameters and runs the episodes of one evaluation."""
    import numpy as np

    from acme_stac.agent import environment_loop

    version = _retry(self._actor.fetch_variables, self._should_stop)
    environment = self._experiment.make_environment(
      self._num_environments,
      _environment_seed(
        self._experiment, self._initial_step, _EVALUATOR, self._count
      ),
    )
    self._count += 1
    try:
      episodes = environment_loop.evaluate(
        environment,
        self._actor,
        self._experiment.evaluation_episodes,
        self._should_stop,
      )
    finally:
      environment.close()
    if episodes is None:
      return
    returns = [episode.episode_return for episode in episodes]
    mean_return = float(np.mean(returns))
    self._log.write({
      **self._normalised(mean_return),
      "environment_steps": version * self._experiment.config.steps_per_update,
      "learner_steps": version,
      "episodes": len(returns),
      "episode_return_mean": mean_return,
      "episode_return_std": float(np.std(returns)),
      "episode_return_min": float(np.min(returns)),
      "episode_return_max": float(np.max(returns)),
      "episode_length_mean": float(np.mean([e.length for e in episodes])),
      "greedy": int(self._experiment.evaluation_greedy),
    })
    self._counter.report_evaluation(mean_return)

  def _normalised(self, mean_return: float) -> dict[str, float]:
    """Returns the human-normalised score of a game of Atari-57."""
    from acme_stac.evaluation import scores

    family, _, game = self._experiment.environment.partition(":")
    if family != "atari":
      return {}
    from acme_stac.environments import atari

    game = atari.rom_name(game)
    if game not in scores.atari_57():
      return {}
    score = scores.human_normalised_score(game, mean_return)
    return {"human_normalised_score": score}

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


def make_counter(experiment: Experiment, initial_step: int) -> RunCounter:
  """Returns the counter of a run.

  Args:
    experiment: the run.
    initial_step: learner steps that are already done.
  """
  config = experiment.config
  # Every actor can work while the learner does.
  making = experiment.num_actors * experiment.environments_per_actor
  consumed = config.batches_per_update * config.batch_size
  ahead = max(config.queue_batches * consumed, consumed + making)
  held = config.batches_ahead * config.batch_size
  return RunCounter(
    config.num_updates * config.steps_per_update,
    ahead * config.steps_per_trajectory,
    initial_step * config.steps_per_update,
    held * config.steps_per_trajectory,
  )
