"""Runs a program in this process: in one thread, or in several."""

import threading
import time
import traceback
from collections.abc import Callable
from concurrent import futures
from typing import Any

import launchpad as lp

from programs.launch import graph
from programs.launch.ending import (
  POLL_SECONDS,
  STOP_SECONDS,
  Interrupted,
  NodeDiedError,
  StopRequest,
  describe_late,
  patience_at_end,
  tail,
  wait,
)
from programs.launch.progress import Progress
from programs.nodes import counter as counter_lib
from programs.nodes import nodes
from programs.run.experiment import Experiment

# Groups of nodes that end by themselves after the last update.
_WORKERS = ("learner", "actor", "evaluator")


def run_serial(experiment: Experiment, progress: Progress):
  """Runs learner and actors in this thread: slow, but repeatable.

  Every `checkpoint_every_updates` updates it begins anew from the checkpoint
  that it has just written, with fresh episodes, as a run does that was killed
  there. So one that is killed and resumed does exactly what it would have done.

  Raises:
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  with StopRequest() as stop:
    done = False
    while not done and not stop:
      done = _run_segment(experiment, progress, stop)
    if stop:
      raise Interrupted(stop.number)


def _run_segment(
  experiment: Experiment, progress: Progress, stop: StopRequest
) -> bool:
  """Runs from checkpoint to checkpoint; returns whether the run is done."""
  ended = threading.Event()

  def should_stop() -> bool:
    return bool(stop) or ended.is_set()

  replay = nodes.make_builder(experiment, should_stop).make_local_queue()
  counter = counter_lib.make_counter(experiment)
  learner = nodes.Learner(
    experiment, replay, counter, None, should_stop, by_steps_only=True
  )
  learner.publish()
  actors = [
    nodes.Actor(experiment, index, replay, learner, counter, should_stop)
    for index in range(experiment.num_actors)
  ]
  evaluator = nodes.Evaluator(experiment, learner, counter, should_stop)
  try:
    _alternate(experiment, learner, actors, evaluator, counter, progress)
  finally:
    ended.set()
    for actor in actors:
      actor.close()
    evaluator.close()
    learner.close()
  if not learner.done:
    return False
  counter.finish()
  progress.show(counter.status())
  return True


def _alternate(experiment, learner, actors, evaluator, counter, progress):
  """Makes what an update needs, learns, and again until a checkpoint."""
  config = experiment.config
  items_per_batch = config.batch_size // experiment.environments_per_actor
  batches = config.batches_to_begin
  every = experiment.evaluation_every_steps
  turn = 0
  due = -(-counter.status()["steps"] // every) * every
  begun_at = learner.saved_step
  while not learner.done:
    steps = counter.status()["steps"]
    if steps >= due:
      due = (steps // every + 1) * every
      if experiment.evaluation_episodes:
        evaluator.evaluate()
    for _ in range(batches * items_per_batch):
      if not actors[turn % len(actors)].run_item(wait_for_variables=True):
        return
      turn += 1
    batches = config.batches_per_update
    if not learner.step():
      return
    progress.show(counter.status())
    if learner.saved_step != begun_at:
      return
  if experiment.evaluation_episodes:
    evaluator.evaluate()


def run_threads(experiment: Experiment, progress: Progress):
  """Runs every node as a thread of this process.

  Raises:
    NodeDiedError: if a node raised an error.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  program, counter_handle = graph.make_program(experiment)
  manager = lp.launch(program, lp.LaunchType.LOCAL_MULTI_THREADING)
  counter = graph.make_status_client(counter_handle)
  with StopRequest() as stop:
    error: BaseException | None = None
    while not stop and not _finished(counter, progress):
      try:
        manager.check_for_thread_worker_exception()
      except BaseException as raised:
        error = raised
        break
      time.sleep(POLL_SECONDS)
    if error is None and not stop:
      _wait_for_the_last(lambda: _alive(*_WORKERS), stop, progress)
    manager.stop_event().set()
    ended = wait(lambda: not _alive(*program.groups), STOP_SECONDS)
    # Launchpad would wait for its threads at exit, and kill this process.
    manager._disable_signals()
    if error is not None:
      raise NodeDiedError(f"A node died: {error!r}") from error
    if not ended:
      raise NodeDiedError("Some nodes did not stop when asked to.")
    if stop:
      raise Interrupted(stop.number)


def split_devices(devices: list[Any], batch_size: int) -> tuple[list, list]:
  """Returns the devices to learn on, and those that are set aside for acting.

  As many as can share a batch evenly learn, but one at least is left to act. A
  single device does both.
  """
  if len(devices) == 1:
    return devices, devices
  learners = max(n for n in range(1, len(devices)) if batch_size % n == 0)
  return devices[:learners], devices[learners:]


def run_colocated(experiment: Experiment, progress: Progress):
  """Runs learner and actors as threads on one host's devices.

  This is section 8 of the papers: some devices are set aside for inference, the
  others learn, parameters go from device to device, and trajectories through a
  queue in memory.

  Raises:
    NodeDiedError: if one of them raised an error.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  import jax

  learner_devices, inference_devices = split_devices(
    jax.local_devices(), experiment.config.batch_size
  )
  print(f"Learner on {learner_devices}, inference on {inference_devices}")
  ended = threading.Event()
  with StopRequest() as stop:

    def should_stop() -> bool:
      return bool(stop) or ended.is_set()

    replay = nodes.make_builder(experiment, should_stop).make_local_queue()
    counter = counter_lib.make_counter(experiment)
    learner = nodes.Learner(
      experiment, replay, counter, None, should_stop, learner_devices
    )
    arguments = (replay, learner, counter, should_stop)
    workers: dict[str, Any] = {"learner": learner}
    for index in range(experiment.num_actors):
      workers[f"actor/{index}"] = nodes.Actor(
        experiment, index, *arguments,
        inference_devices[index % len(inference_devices)],
      )
    if experiment.evaluation_episodes:
      workers["evaluator"] = nodes.Evaluator(
        experiment, learner, counter, should_stop, inference_devices[-1]
      )
    with futures.ThreadPoolExecutor(len(workers)) as pool:
      running = {
        pool.submit(worker.run): name for name, worker in workers.items()
      }
      try:
        _watch_threads(running, counter, progress)
      finally:
        ended.set()
    if stop:
      raise Interrupted(stop.number)


def _watch_threads(
  running: dict[futures.Future, str], counter: Any, progress: Progress
):
  """Returns when all have ended; raises NodeDiedError if one raised."""
  pending = set(running)
  finished: float | None = None
  while pending:
    done, pending = futures.wait(pending, POLL_SECONDS)
    status = counter.status()
    progress.show(status)
    for future in done:
      if (error := future.exception()) is not None:
        last = tail("".join(traceback.format_exception(error)))
        raise NodeDiedError(
          f"{running[future]} died, so the run was stopped:\n{last}"
        ) from error
    if status["finished"]:
      finished = finished or time.monotonic()
      names = sorted(running[future] for future in pending)
      limit = patience_at_end(names)
      if names and time.monotonic() - finished > limit:
        progress.note(describe_late(names, limit))
        return


def _wait_for_the_last(
  running: Callable[[], list[str]], stop: StopRequest, progress: Progress
):
  """Waits, after the last update, for those nodes that end by themselves."""
  started = time.monotonic()
  while (names := running()) and not stop:
    limit = patience_at_end(names)
    if time.monotonic() - started > limit:
      progress.note(describe_late(names, limit))
      return
    time.sleep(POLL_SECONDS)


def _alive(*labels: str) -> list[str]:
  """Returns the groups of nodes, of these, that have threads running."""
  names = {thread.name for thread in threading.enumerate()}
  return [label for label in labels if label in names]


def _finished(counter: Any, progress: Progress) -> bool:
  """Shows the progress; returns whether the learner has finished."""
  try:
    status = counter.status()
  except Exception:  # Not there yet, or no longer: the caller watches that.
    return False
  progress.show(status)
  return status["finished"]
