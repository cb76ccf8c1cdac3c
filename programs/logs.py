"""Where metrics go: CSV files and TensorBoard events of the work directory."""

from collections.abc import Callable, Mapping
from typing import Any

from acme.utils import loggers
from acme.utils.loggers import aggregators
from acme.utils.loggers import csv as csv_logger

from programs.experiment import Experiment


def make_logger(
  experiment: Experiment, label: str, tensorboard: bool = False
) -> loggers.Logger:
  """Returns a logger that appends to logs/<label>.csv.

  Args:
    experiment: the run.
    label: name of the file.
    tensorboard: write events too, over environment steps.
  """
  experiment.logs.mkdir(parents=True, exist_ok=True)
  file = open(experiment.logs / f"{label}.csv", "a")  # noqa: SIM115
  logger: loggers.Logger = csv_logger.CSVLogger(file, flush_every=1)
  if not tensorboard:
    return logger
  # Brings TensorFlow, which only the nodes that need it should load.
  from acme.utils.loggers import tf_summary

  events = tf_summary.TFSummaryLogger(
    str(experiment.workdir / "tensorboard"), label, "environment_steps"
  )
  return aggregators.Dispatcher([logger, events])


class Enriched(loggers.Logger):
  """Adds fields to every row."""

  def __init__(
    self, logger: loggers.Logger, fields: Callable[[], Mapping[str, Any]]
  ):
    """Takes the logger to write to and what gives the fields."""
    self._logger = logger
    self._fields = fields

  def write(self, data: Mapping[str, Any]):
    """Writes a row."""
    self._logger.write({**data, **self._fields()})

  def close(self):
    """Closes the logger."""
    self._logger.close()
