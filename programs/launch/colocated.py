"""Runs learner and actors as threads that share the devices of one host.

Implements section 8 of the paper: some devices are reserved for inference and
the others learn; parameters move from device to device, and trajectories pass
through a queue in memory.
"""

import contextlib
import functools
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax

from programs.launch.ending import (
  POLL_SECONDS,
  Interrupted,
  NodeDiedError,
  StopRequest,
  tail,
)
from programs.launch.modes import Launch
from programs.launch.progress import LastNodes, Progress
from programs.nodes import building
from programs.nodes.actor import Actor, compile_inference
from programs.nodes.counter import make_counter
from programs.nodes.evaluator import Evaluator
from programs.nodes.learner import Learner
from programs.nodes.variables import newest_version
from programs.run.experiment import Experiment

# Threads that wait for Python's lock request it after this time; Python's
# default of 5 ms is longer than a step.
_SWITCH_SECONDS = 0.0002
# Groups of an actor's environments if inference runs on an accelerator.
_GROUPS = 2


def num_groups(experiment: Experiment, device: Any) -> int:
  """Returns the number of groups in which an actor's environments take turns.

  If inference runs on the CPU, it uses the environments' cores and groups gain
  nothing, so there is one.
  """
  is_split = experiment.environments_per_actor % _GROUPS == 0
  return _GROUPS if is_split and device.platform != "cpu" else 1


def split_devices(devices: list[Any], batch_size: int) -> tuple[list, list]:
  """Returns the devices for learning and those for acting.

  As many devices learn as can share a batch evenly, but at least one is left
  for acting. A single device does both.
  """
  if len(devices) == 1:
    return devices, devices
  learners = max(n for n in range(1, len(devices)) if batch_size % n == 0)
  return devices[:learners], devices[learners:]


def run(launch: Launch):
  """Runs learner, actors and evaluator as threads of this process.

  Raises:
    NodeDiedError: if one of them raised an error.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  experiment = launch.experiment
  learner_devices, inference_devices = split_devices(
    jax.local_devices(), experiment.config.batch_size
  )
  print(f"Learner on {learner_devices}, inference on {inference_devices}")
  ended = threading.Event()
  with StopRequest() as stop:

    def should_stop() -> bool:
      return bool(stop) or ended.is_set()

    replay = building.make_builder(experiment, should_stop).make_local_queue()
    counter = make_counter(experiment)
    learner = Learner(
      experiment, replay, counter, newest_version, should_stop,
      learner_devices, shares_devices=learner_devices == inference_devices,
    )
    groups = num_groups(experiment, inference_devices[0])

    # Before environments are made, as some hold Python's lock for seconds.
    inferences = {
      device: compile_inference(experiment, groups, device)
      for device in inference_devices[: experiment.num_actors]
    }

    def run_actor(index: int):
      device = inference_devices[index % len(inference_devices)]
      actor = Actor(
        experiment, index, replay, learner, counter, should_stop,
        inferences[device], groups,
      )
      # Acting would disturb XLA, which times kernels while it compiles.
      learner.wait_until_compiled()
      actor.run()

    def run_evaluator():
      evaluator = Evaluator(
        experiment, learner, counter, should_stop, inference_devices[-1]
      )
      learner.wait_until_compiled()
      evaluator.run()

    nodes: dict[str, Callable[[], None]] = {"learner": learner.run}
    for index in range(experiment.num_actors):
      nodes[f"actor/{index}"] = functools.partial(run_actor, index)
    if experiment.evaluation_episodes:
      nodes["evaluator"] = run_evaluator
    with _prompt_threads(), futures.ThreadPoolExecutor(len(nodes)) as pool:
      running = {pool.submit(run): name for name, run in nodes.items()}
      try:
        watch(running, counter, launch.progress)
      finally:
        ended.set()
    if stop:
      raise Interrupted(stop.number)


@contextlib.contextmanager
def _prompt_threads():
  before = sys.getswitchinterval()
  sys.setswitchinterval(_SWITCH_SECONDS)
  try:
    yield
  finally:
    sys.setswitchinterval(before)


def watch(
  running: dict[futures.Future, str], counter: Any, progress: Progress
):
  """Shows the progress of nodes until all have ended.

  Args:
    running: maps each node's future to its name.
    counter: the run's counter.
    progress: shows it.

  Raises:
    NodeDiedError: if one of them raised an error.
  """
  pending = set(running)
  last: LastNodes | None = None
  while pending:
    done, pending = futures.wait(pending, POLL_SECONDS)
    status = counter.status()
    progress.show(status)
    for future in done:
      if (error := future.exception()) is not None:
        lines = tail("".join(traceback.format_exception(error)))
        raise NodeDiedError(
          f"{running[future]} died, so the run was stopped:\n{lines}"
        ) from error
    if status["finished"]:
      last = last or LastNodes(progress)
      if last.ended(sorted(running[future] for future in pending)):
        return
