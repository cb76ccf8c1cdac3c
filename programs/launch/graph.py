"""The Launchpad program: nodes and the edges between them.

actor/0..N-1 --trajectories--> replay --batches--> learner
     ^                                                |
     +------------- variables <----parameters---------+

The evaluator reads variables; the counter grants steps and ends the run.
"""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import courier
import launchpad as lp

from acme_stac.agent import queues
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


class _Peers:
  """A node's clients of other nodes; they wait for nodes that are restarted."""

  def __init__(
    self, experiment: Experiment, variables: courier.Client, counter: Any
  ):
    # Returns whether the program is ending, in any thread.
    self.should_stop = lp.stop_event().is_set
    waits = (self.should_stop, experiment.patience_seconds)
    server = "The variable server"
    self.counter = PatientClient(counter, "The counter", *waits)
    self.variables = PatientClient(VariableClient(variables), server, *waits)
    self.send = VariableSender(
      lambda data: patiently(
        lambda: variables.futures.put(data).result(), server, *waits
      )
    )


def _run(make: Callable[[], Any], environment_timeout: float | None = None):
  """Makes and runs a node.

  Args:
    make: makes the node.
    environment_timeout: seconds, if the node has environments.
  """
  if node_process.NODE_NAME in os.environ:  # A process for this node alone.
    if environment_timeout is not None:
      node_process.end_if_stuck(2 * environment_timeout)
    node_process.run(make)
    return
  with contextlib.suppress(EndedError):
    make().run()


def _run_learner(experiment: Experiment, replays, variables, counter):
  peers = _Peers(experiment, variables, counter)
  _run(lambda: Learner(
    experiment, queues.ReverbQueues(replays), peers.counter, peers.send,
    peers.should_stop,
  ))


def _run_actor(
  experiment: Experiment, index: int, replay, variables, counter
):
  peers = _Peers(experiment, variables, counter)
  _run(
    lambda: Actor(
      experiment, index, queues.ReverbQueue(replay), peers.variables,
      peers.counter, peers.should_stop,
    ),
    experiment.environment_timeout_seconds,
  )


def _run_evaluator(experiment: Experiment, variables, counter):
  peers = _Peers(experiment, variables, counter)
  _run(
    lambda: Evaluator(
      experiment, peers.variables, peers.counter, peers.should_stop
    ),
    experiment.environment_timeout_seconds,
  )


def _make_tables(experiment: Experiment) -> list[Any]:
  """Makes the tables of a replay node."""
  builder = building.make_builder(experiment, lambda: False)
  return [queues.make_table(builder, experiment.environment_spec)]


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
      program.add_node(
        lp.ReverbNode(functools.partial(_make_tables, experiment))
      )
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
      lp.PyNode(_run_learner, experiment, replays, variables, counter)
    )
  with program.group("actor"):
    for index in range(experiment.num_actors) if actors is None else actors:
      replay = replays[index % len(replays)]
      program.add_node(
        lp.PyNode(_run_actor, experiment, index, replay, variables, counter)
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
