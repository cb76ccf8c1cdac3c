"""The Launchpad program: nodes and the edges between them.

actor/0..N-1 --trajectories--> replay --batches--> learner
     ^                                                |
     +------------- variables <----parameters---------+

The evaluator reads variables; the counter grants steps and ends the run.
"""

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import courier
import launchpad as lp

from programs.launch import ending
from programs.nodes import calls, nodes
from programs.nodes.counter import make_counter
from programs.run.experiment import Experiment

# Longer than any call takes; a call to a node that is gone fails after it.
_CALL_TIMEOUT_SECONDS = 10
# In a node's environment, so that tools can tell the processes apart.
NODE_NAME = "ACME_STAC_NODE"
# In a node's environment: a descriptor that takes why it is hopeless.
REASON_FILE = "ACME_STAC_REASON_FILE"
# Exit code of a process whose node says that no other process will do better.
EXIT_HOPELESS = 69


def _run(make: Callable[[Callable[[], bool]], Any]):
  """Makes and runs a node.

  Args:
    make: called with a function that says, in any thread, whether the program
      is ending.
  """
  should_stop = lp.stop_event().is_set
  if NODE_NAME in os.environ:
    # Its log may be on a full disk.
    ending.drop_lost_output()
    ending.leave_no_children(ending.end_session)
  try:
    make(should_stop).run()
  except calls.EndedError:
    pass
  except nodes.HopelessError as error:
    if NODE_NAME not in os.environ:
      raise
    ending.say(str(error))
    if REASON_FILE in os.environ:
      # The log's disk may be full.
      with contextlib.suppress(OSError):
        os.write(int(os.environ[REASON_FILE]), str(error).encode())
    # Nothing may fail from here on, or say more.
    os._exit(EXIT_HOPELESS)
  finally:
    if NODE_NAME in os.environ:
      # Launchpad's alarm would kill a process that takes a second to end.
      signal.alarm(0)
      signal.signal(signal.SIGALRM, signal.SIG_IGN)


def _end_if_stuck(seconds: float):
  """Ends this process, with its traceback, if no Python runs for so long.

  An environment that hangs in foreign code and does not let go of Python's lock
  is not noticed by any thread of Python's.
  """
  if NODE_NAME not in os.environ:
    return

  def put_off():
    while True:
      faulthandler.dump_traceback_later(seconds, exit=True)
      time.sleep(min(5.0, seconds / 3))

  threading.Thread(target=put_off, daemon=True, name="stuck").start()


def _patient(
  client: Any, name: str, experiment: Experiment, stop: Callable[[], bool]
) -> calls.Patient:
  return calls.Patient(client, name, stop, experiment.patience_seconds)


def _patient_source(
  variables: Any, experiment: Experiment, stop: Callable[[], bool]
) -> calls.Patient:
  source = nodes.VariableSource(variables)
  return _patient(source, "The variable server", experiment, stop)


def _run_learner(experiment: Experiment, replays, counter, variables):
  def make(stop: Callable[[], bool]) -> nodes.Learner:
    def send(data: bytes):
      calls.patiently(
        lambda: variables.futures.put(data).result(),
        "The variable server", stop, experiment.patience_seconds,
      )

    return nodes.Learner(
      experiment,
      replays,
      _patient(counter, "The counter", experiment, stop),
      send,
      stop,
    )

  _run(make)


def _run_actor(
  experiment: Experiment, index: int, replay, variables, counter
):
  _end_if_stuck(2 * experiment.environment_timeout_seconds)
  _run(lambda stop: nodes.Actor(
    experiment,
    index,
    replay,
    _patient_source(variables, experiment, stop),
    _patient(counter, "The counter", experiment, stop),
    stop,
  ))


def _run_evaluator(experiment: Experiment, variables, counter):
  _end_if_stuck(2 * experiment.environment_timeout_seconds)
  _run(lambda stop: nodes.Evaluator(
    experiment,
    _patient_source(variables, experiment, stop),
    _patient(counter, "The counter", experiment, stop),
    stop,
  ))


def make_program(
  experiment: Experiment, actors: range | None = None
) -> tuple[lp.Program, Any]:
  """Returns the program of a run and the handle of its counter.

  Args:
    experiment: the run.
    actors: the actors' indices, if they are not 0 to num_actors - 1.
  """
  program = lp.Program("acme_stac")
  client = {"courier_client_kwargs": {"call_timeout": _CALL_TIMEOUT_SECONDS}}

  with program.group("replay"):
    replays = [
      program.add_node(lp.ReverbNode(_Tables(experiment)))
      for _ in range(experiment.num_queues)
    ]
  with program.group("counter"):
    counter = program.add_node(
      lp.CourierNode(
        make_counter,
        experiment,
        # Each actor may have a call that waits for the learner.
        courier_kwargs={"thread_pool_size": experiment.num_actors + 8},
        **client,
      )
    )
  with program.group("variables"):
    variables = program.add_node(
      lp.CourierNode(nodes.VariableServer, **client)
    )
  with program.group("learner"):
    program.add_node(
      lp.PyNode(_run_learner, experiment, replays, counter, variables)
    )
  with program.group("actor"):
    for index in range(experiment.num_actors) if actors is None else actors:
      program.add_node(
        lp.PyNode(
          _run_actor,
          experiment,
          index,
          replays[index % len(replays)],
          variables,
          counter,
        )
      )
  if experiment.evaluation_episodes:
    with program.group("evaluator"):
      program.add_node(
        lp.PyNode(_run_evaluator, experiment, variables, counter)
      )
  return program, counter


class _Tables:
  """Makes the tables of the replay node."""

  def __init__(self, experiment: Experiment):
    self._experiment = experiment

  def __call__(self) -> list[Any]:
    return nodes.make_tables(self._experiment)


def make_status_client(counter: Any) -> courier.Client:
  """Returns a client of the counter that does not wait long for an answer."""
  counter.set_client_kwargs(call_timeout=2, wait_for_ready=False)
  return counter.dereference()
