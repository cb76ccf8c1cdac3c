"""Runs learner and actors in one thread: slow, but repeatable."""

import threading
from typing import Any

from programs.launch.ending import Interrupted, StopRequest
from programs.launch.modes import Launch
from programs.launch.progress import Progress
from programs.nodes import building
from programs.nodes.actor import Actor, compile_inference
from programs.nodes.counter import make_counter
from programs.nodes.evaluator import Evaluator
from programs.nodes.learner import Learner
from programs.nodes.variables import newest_version
from programs.run.experiment import Experiment


def run(launch: Launch):
  """Runs learner and actors in this thread.

  Every `checkpoint_every_updates` updates, the run restarts from the checkpoint
  that it has just written, with fresh episodes, just as a killed run does when
  it is resumed. A run that is killed and resumed therefore gives exactly the
  results of an uninterrupted one.

  Raises:
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
    HopelessError: if the run cannot go on.
  """
  with StopRequest() as stop:
    done = False
    while not done and not stop:
      done = _run_segment(launch.experiment, launch.progress, stop)
    if stop:
      raise Interrupted(stop.number)


def _run_segment(
  experiment: Experiment, progress: Progress, stop: StopRequest
) -> bool:
  """Runs from checkpoint to checkpoint; returns whether the run is done."""
  ended = threading.Event()

  def should_stop() -> bool:
    return bool(stop) or ended.is_set()

  replay = building.make_builder(experiment, should_stop).make_local_queue()
  counter = make_counter(experiment)
  learner = Learner(
    experiment, replay, counter, newest_version, should_stop,
    # A repeatable run must not depend on the clock.
    checkpoint_every_seconds=float("inf"),
  )
  learner.publish()
  inference = compile_inference(experiment)
  actors = [
    Actor(experiment, index, replay, learner, counter, should_stop, inference)
    for index in range(experiment.num_actors)
  ]
  evaluator = Evaluator(experiment, learner, counter, should_stop)
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


def _alternate(
  experiment: Experiment,
  learner: Learner,
  actors: list[Actor],
  evaluator: Evaluator,
  counter: Any,
  progress: Progress,
):
  """Alternates between acting and updates until a checkpoint is written."""
  config = experiment.config
  every = experiment.evaluation_every_steps
  turn = 0
  # Number of trajectories that the next update still needs.
  missing = config.batches_to_begin * config.batch_size
  due = -(-counter.status()["steps"] // every) * every
  begun_at = learner.saved_step
  while not learner.done:
    steps = counter.status()["steps"]
    if steps >= due:
      due = (steps // every + 1) * every
      if experiment.evaluation_episodes:
        evaluator.evaluate()
    while missing > 0:
      if not actors[turn % len(actors)].run_item(wait_for_variables=True):
        return
      turn += 1
      missing -= experiment.environments_per_actor
    missing += config.batches_per_update * config.batch_size
    if not learner.step():
      return
    progress.show(counter.status())
    if learner.saved_step != begun_at:
      return
  if experiment.evaluation_episodes:
    evaluator.evaluate()
