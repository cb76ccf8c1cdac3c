"""The Launchpad program: nodes and the edges between them.

actor/0..N-1 --trajectories--> replay --batches--> learner
     ^                                                |
     +------------- variables <----parameters---------+

The evaluator reads variables; the counter grants steps and ends the run.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import courier
import launchpad as lp

from acme_stac.agent import queues
from acme_stac.training.variables import ACTOR_VARIABLES
from programs.launch import node_process
from programs.nodes import building
from programs.nodes.actor import Actor
from programs.nodes.calls import PatientClient, StatusNotOk, patiently
from programs.nodes.counter import make_counter
from programs.nodes.evaluator import Evaluator
from programs.nodes.failures import EndedError
from programs.nodes.learner import Learner
from programs.nodes.variables import (
  VariableClient,
  VariableSender,
  VariableServer,
)
from programs.run.experiment import Experiment

# Longer than any call takes; a call to a node that is gone fails after it.
_CALL_TIMEOUT_SECONDS = 10
_STATUS_TIMEOUT_SECONDS = 2


def _run(make: Callable[[Callable[[], bool]], Any]):
  """Makes and runs a node.

  Args:
    make: called with a function that says, in any thread, whether the program
      is ending.
  """
  should_stop = lp.stop_event().is_set
  if node_process.is_node_process():
    node_process.run(lambda: make(should_stop))
    return
  with contextlib.suppress(EndedError):
    make(should_stop).run()


def _run_guarded(
  make: Callable[[Callable[[], bool]], Any], experiment: Experiment
):
  """Makes and runs a node that has environments."""
  if node_process.is_node_process():
    node_process.end_if_stuck(2 * experiment.environment_timeout_seconds)
  _run(make)


class _Peers:
  """Makes the clients of one node, which wait for nodes that are restarted."""

  def __init__(self, experiment: Experiment, should_stop: Callable[[], bool]):
    self._arguments = (should_stop, experiment.patience_seconds)

  def counter(self, client: courier.Client) -> PatientClient:
    return PatientClient(client, "The counter", *self._arguments)

  def variables(self, client: courier.Client) -> PatientClient:
    return PatientClient(
      VariableClient(client), "The variable server", *self._arguments
    )

  def variable_sender(
    self, client: courier.Client, experiment: Experiment
  ) -> VariableSender:
    def send(data: bytes):
      patiently(
        lambda: client.futures.put(data).result(),
        "The variable server", *self._arguments,
      )

    return VariableSender(send, ACTOR_VARIABLES)


def _run_learner(experiment: Experiment, replays, counter, variables):
  def make(should_stop: Callable[[], bool]) -> Learner:
    peers = _Peers(experiment, should_stop)
    return Learner(
      experiment,
      queues.ReverbQueues(replays),
      peers.counter(counter),
      peers.variable_sender(variables, experiment),
      should_stop,
    )

  _run(make)


def _run_actor(
  experiment: Experiment, index: int, replay, variables, counter
):
  def make(should_stop: Callable[[], bool]) -> Actor:
    peers = _Peers(experiment, should_stop)
    return Actor(
      experiment,
      index,
      queues.ReverbQueue(replay),
      peers.variables(variables),
      peers.counter(counter),
      should_stop,
    )

  _run_guarded(make, experiment)


def _run_evaluator(experiment: Experiment, variables, counter):
  def make(should_stop: Callable[[], bool]) -> Evaluator:
    peers = _Peers(experiment, should_stop)
    return Evaluator(
      experiment,
      peers.variables(variables),
      peers.counter(counter),
      should_stop,
    )

  _run_guarded(make, experiment)


class _Tables:
  """Makes the tables of a replay node."""

  def __init__(self, experiment: Experiment):
    self._experiment = experiment

  def __call__(self) -> list[Any]:
    builder = building.make_builder(self._experiment, lambda: False)
    return [queues.make_table(builder, self._experiment.environment_spec)]


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
    variables = program.add_node(lp.CourierNode(VariableServer, **client))
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


def make_status_client(counter: Any) -> courier.Client:
  """Returns a client of the counter that does not wait long for an answer."""
  counter.set_client_kwargs(
    call_timeout=_STATUS_TIMEOUT_SECONDS, wait_for_ready=False
  )
  return counter.dereference()


def ask(call: Callable[..., Any], *args: Any) -> Any | None:
  """Returns the answer of a node; None if it is not there, or no longer."""
  try:
    return call(*args)
  except StatusNotOk:
    return None
