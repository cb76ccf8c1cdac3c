"""The builder of a run: how its nodes make the parts of the agent."""

from collections.abc import Callable
from typing import Any

from acme_stac.agent.builder import STACBuilder
from programs.run.experiment import Experiment


def make_builder(
  experiment: Experiment, should_stop: Callable[[], bool], **devices: Any
) -> STACBuilder:
  """Returns the builder of a run; `devices` are those of `STACBuilder`."""
  return STACBuilder(
    experiment.config,
    network_factory=experiment.network_factory,
    environments_per_actor=experiment.environments_per_actor,
    num_queues=experiment.num_queues,
    log_every_seconds=experiment.log_every_seconds,
    should_stop=should_stop,
    **devices,
  )
