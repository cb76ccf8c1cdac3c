"""Runs the Launchpad program in threads of this process."""

import threading
import time

import courier
import launchpad as lp

from programs.launch import graph, launchpad_internals
from programs.launch.ending import (
  POLL_SECONDS,
  STOP_SECONDS,
  Interrupted,
  NodeDiedError,
  StopRequest,
  wait,
)
from programs.launch.modes import Launch
from programs.launch.progress import LastNodes, Progress

# Groups of nodes that end by themselves after the last update.
_WORKERS = ("learner", "actor", "evaluator")


def run(launch: Launch):
  """Runs every node as a thread of this process.

  Raises:
    NodeDiedError: if a node raised an error.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  program, counter_handle = graph.make_program(launch.experiment)
  manager = lp.launch(program, lp.LaunchType.LOCAL_MULTI_THREADING)
  counter = graph.make_status_client(counter_handle)
  with StopRequest() as stop:
    error: BaseException | None = None
    while not stop and not _finished(counter, launch.progress):
      try:
        manager.check_for_thread_worker_exception()
      except BaseException as raised:  # Whatever a node raised.
        error = raised
        break
      time.sleep(POLL_SECONDS)
    if error is None:
      last = LastNodes(launch.progress)
      while not stop and not last.ended(_alive(*_WORKERS)):
        time.sleep(POLL_SECONDS)
    manager.stop_event().set()
    ended = wait(lambda: not _alive(*program.groups), STOP_SECONDS)
    launchpad_internals.disarm(manager)
    if error is not None:
      raise NodeDiedError(f"A node died: {error!r}") from error
    if not ended:
      raise NodeDiedError("Some nodes did not stop when asked to.")
    if stop:
      raise Interrupted(stop.number)


def _alive(*labels: str) -> list[str]:
  """Returns the groups of nodes whose threads are running."""
  names = {thread.name for thread in threading.enumerate()}
  return [label for label in labels if label in names]


def _finished(counter: courier.Client, progress: Progress) -> bool:
  """Shows the progress; returns whether the learner has finished."""
  status = graph.ask(counter.status)
  if status is None:
    return False
  progress.show(status)
  return status["finished"]
