"""The Launchpad program: nodes and the edges between them.

actor/0..N-1 --trajectories--> replay --batches--> learner
     ^                                                |
     +------------- variables <----parameters---------+

The evaluator reads variables; the counter grants steps and ends the run.
"""

from collections.abc import Callable
from typing import Any

import courier
import launchpad as lp

from programs import nodes
from programs.experiment import Experiment

# Longer than any call takes; a call to a node that is gone fails after it.
_CALL_TIMEOUT_SECONDS = 10


def _should_stop() -> Callable[[], bool]:
  """Returns whether the program is ending, as a function for any thread."""
  return lp.stop_event().is_set


def _run_learner(experiment: Experiment, replay, counter, variables):
  nodes.Learner(
    experiment, replay, counter, variables.futures.put, _should_stop()
  ).run()


def _run_actor(
  experiment: Experiment, index: int, step: int, replay, variables, counter
):
  nodes.Actor(
    experiment, index, step, replay, variables, counter, _should_stop()
  ).run()


def _run_evaluator(experiment: Experiment, step: int, variables, counter):
  nodes.Evaluator(experiment, step, variables, counter, _should_stop()).run()


def make_program(
  experiment: Experiment, initial_step: int
) -> tuple[lp.Program, Any]:
  """Returns the program of a run and the handle of its counter.

  Args:
    experiment: the run.
    initial_step: learner steps of the checkpoint that is resumed, or 0.
  """
  program = lp.Program("acme_stac")
  client = {"courier_client_kwargs": {"call_timeout": _CALL_TIMEOUT_SECONDS}}

  with program.group("replay"):
    replay = program.add_node(
      lp.ReverbNode(_Tables(experiment))
    )
  with program.group("counter"):
    counter = program.add_node(
      lp.CourierNode(
        nodes.make_counter,
        experiment,
        initial_step,
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
      lp.PyNode(_run_learner, experiment, replay, counter, variables)
    )
  with program.group("actor"):
    for index in range(experiment.num_actors):
      program.add_node(
        lp.PyNode(
          _run_actor,
          experiment,
          index,
          initial_step,
          replay,
          variables,
          counter,
        )
      )
  if experiment.evaluation_episodes:
    with program.group("evaluator"):
      program.add_node(
        lp.PyNode(_run_evaluator, experiment, initial_step, variables, counter)
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
