"""Makes the builder with which a run's nodes make the parts of the agent."""

from collections.abc import Callable
from typing import Any

from acme_stac.training import AgentBuilder
from programs.run.experiment import Experiment


def make_builder(
  experiment: Experiment, should_stop: Callable[[], bool], **devices: Any
) -> AgentBuilder:
  """Returns the builder of a run.

  Args:
    experiment: the run.
    should_stop: whether the program is ending.
    **devices: `learner_devices` and `inference_device` of `AgentBuilder`.
  """
  return AgentBuilder(
    experiment.config,
    network_factory=experiment.network_factory,
    environments_per_actor=experiment.environments_per_actor,
    num_queues=experiment.num_queues,
    log_every_seconds=experiment.log_every_seconds,
    should_stop=should_stop,
    **devices,
  )
