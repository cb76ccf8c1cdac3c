"""Where metrics go: CSV files, TensorBoard events, Weights & Biases."""

import logging
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np
from acme.utils import loggers
from acme.utils.loggers import aggregators
from acme.utils.loggers import csv as csv_logger

from programs.run.experiment import Experiment

_WARNING_SECONDS = 60.0


def make_logger(
  experiment: Experiment, label: str, dashboards: bool = False
) -> loggers.Logger:
  """Returns a logger that appends to logs/<label>.csv.

  Args:
    experiment: the run.
    label: name of the file.
    dashboards: write to TensorBoard too, over environment steps, and to Weights
      & Biases if the run has a project there.
  """
  experiment.logs.mkdir(parents=True, exist_ok=True)
  path = experiment.logs / f"{label}.csv"
  _end_last_line(path)
  file = open(path, "a")  # noqa: SIM115
  logger = Unfailing(csv_logger.CSVLogger(file, flush_every=1), str(path), file)
  if not dashboards:
    return logger
  # Brings TensorFlow, which only the nodes that need it should load.
  from acme.utils.loggers import tf_summary

  directory = str(experiment.workdir / "tensorboard")
  events = Unfailing(
    AsArrays(
      tf_summary.TFSummaryLogger(directory, label, "environment_steps")
    ),
    directory,
  )
  everywhere = [logger, events]
  if experiment.wandb_project is not None:
    everywhere.append(
      Unfailing(WandbLogger(experiment, label), "Weights & Biases")
    )
  return aggregators.Dispatcher(everywhere)


def _end_last_line(path: pathlib.Path):
  """Ends a line that a process was killed in, or that a full disk cut."""
  try:
    with open(path, "rb+") as file:
      file.seek(-1, os.SEEK_END)
      if file.read(1) != b"\n":
        file.write(b"\n")
  except OSError:  # Not there yet, empty, or the disk is full.
    pass


class WandbLogger(loggers.Logger):
  """Writes to a run of Weights & Biases, over environment steps.

  The nodes of one training run are runs of one group there, and so is what a
  resumed run adds.
  """

  def __init__(self, experiment: Experiment, label: str):
    """Takes the run and the name of the log."""
    self._experiment = experiment
    self._label = label
    self._run: Any = None

  def write(self, data: Mapping[str, Any]):
    """Writes a row; the first one starts the run there."""
    if self._run is None:
      import wandb

      name = self._experiment.workdir.name
      self._run = wandb.init(
        project=self._experiment.wandb_project,
        group=name,
        name=f"{name}/{self._label}",
        job_type=self._label,
        dir=str(self._experiment.workdir),
        config=self._experiment.to_json(),
      )
      self._run.define_metric("*", step_metric="environment_steps")
    self._run.log(dict(data))

  def close(self):
    """Ends the run there."""
    if self._run is not None:
      self._run.finish()


class Unfailing(loggers.Logger):
  """Loses rows instead of ending the run when they cannot be written."""

  def __init__(
    self, logger: loggers.Logger, place: str, file: TextIO | None = None
  ):
    """Takes the logger, what to call it, and a file to close with it."""
    self._logger = logger
    self._place = place
    self._file = file
    self._last_warning = float("-inf")

  def write(self, data: Mapping[str, Any]):
    """Writes a row if possible."""
    try:
      self._logger.write(data)
    except Exception as error:  # TensorFlow's are of many kinds.
      now = time.monotonic()
      if now - self._last_warning > _WARNING_SECONDS:
        self._last_warning = now
        logging.warning("%s cannot be written: %s", self._place, error)

  def close(self):
    """Closes the logger."""
    try:
      self._logger.close()
      if self._file is not None:
        self._file.close()
    except Exception as error:
      logging.warning("%s cannot be closed: %s", self._place, error)


class AsArrays(loggers.Logger):
  """Makes arrays of all numbers.

  TensorFlow caches every Python number that it is given, by value and for ever:
  0.7 KB each, 35 KB of a row of fifty.
  """

  def __init__(self, logger: loggers.Logger):
    """Takes the logger to write to."""
    self._logger = logger

  def write(self, data: Mapping[str, Any]):
    """Writes a row."""
    self._logger.write({name: np.asarray(x) for name, x in data.items()})

  def close(self):
    """Closes the logger."""
    self._logger.close()


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
