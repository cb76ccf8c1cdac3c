"""Loggers of metrics: CSV files, TensorBoard events, Weights & Biases."""

import csv
import logging
import os
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.scalar import summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

from programs.run.experiment import Experiment

_WARNING_SECONDS = 60.0


class Logger(Protocol):
  """Writes rows of metrics."""

  def write(self, data: Mapping[str, Any]):
    """Writes a row."""

  def close(self):
    """Writes pending rows and closes the log."""


def make_logger(
  experiment: Experiment, label: str, dashboards: bool = False
) -> Logger:
  """Returns a logger that appends to logs/<label>.csv.

  A row that cannot be written is lost with a warning; training goes on.

  Args:
    experiment: the run.
    label: name of the file.
    dashboards: write to TensorBoard as well, over environment steps, and to
      Weights & Biases if the run has a project there.
  """
  experiment.logs.mkdir(parents=True, exist_ok=True)
  path = experiment.logs / f"{label}.csv"
  loggers: dict[str, Logger] = {str(path): CsvLogger(path)}
  if dashboards:
    events = experiment.workdir / "tensorboard"
    loggers[str(events)] = TensorBoardLogger(events, label)
    if experiment.wandb_project is not None:
      loggers["Weights & Biases"] = WandbLogger(experiment, label)
  return _Unfailing(loggers)


class CsvLogger(Logger):
  """Appends to a CSV file.

  Its columns are those that the file has, or those of the first row.
  """

  def __init__(self, path: pathlib.Path):
    """Opens the file."""
    self._file = open(path, "a", newline="")  # noqa: SIM115
    self._writer: csv.DictWriter | None = None

  def write(self, data: Mapping[str, Any]):
    """Writes a row."""
    if self._writer is None:
      self._end_last_line()
      self._writer = csv.DictWriter(
        self._file, self._columns() or sorted(data), extrasaction="ignore"
      )
      if not self._file.tell():
        self._writer.writeheader()
    self._writer.writerow(data)
    self._file.flush()

  def _columns(self) -> list[str]:
    """Returns the columns of the file; [] if it is empty."""
    with open(self._file.name, newline="") as file:
      return next(csv.reader(file), [])

  def _end_last_line(self):
    """Ends a line that was cut off by a crash or a full disk."""
    if not self._file.tell():
      return
    with open(self._file.name, "rb") as file:
      file.seek(-1, os.SEEK_END)
      if file.read() != b"\n":
        self._file.write("\n")

  def close(self):
    """Closes the file."""
    self._file.close()


class TensorBoardLogger(Logger):
  """Writes scalars over environment steps, without TensorFlow.

  TensorFlow's own writer caches every Python number that it receives and never
  frees it: 35 KB for a row of fifty.
  """

  def __init__(self, directory: pathlib.Path, label: str):
    """Makes a file of events.

    Args:
      directory: the directory for files of all labels.
      label: group of the scalars.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads only files that are named like this.
    name = (
      f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}."
      f"{os.getpid()}.{label}"
    )
    self._file = open(directory / name, "wb")  # noqa: SIM115
    self._records = RecordWriter(self._file)
    self._label = label

  def _write(self, event: event_pb2.Event):
    event.wall_time = time.time()
    self._records.write(event.SerializeToString())
    self._file.flush()

  def write(self, data: Mapping[str, Any]):
    """Writes a row."""
    if not self._file.tell():
      self._write(event_pb2.Event(file_version="brain.Event:2"))
    event = event_pb2.Event(step=int(data["environment_steps"]))
    for name, value in data.items():
      if name != "environment_steps":
        tag = f"{self._label}/{name.title().replace('_', '')}"
        event.summary.MergeFrom(summary_v2.scalar_pb(tag, np.asarray(value)))
    self._write(event)

  def close(self):
    """Closes the file."""
    self._file.close()


class WandbLogger(Logger):
  """Writes to a run of Weights & Biases, over environment steps.

  The nodes of a training run are runs of one group there; resuming adds further
  runs to the group.
  """

  def __init__(self, experiment: Experiment, label: str):
    """Prepares the log `label` of a run."""
    self._experiment = experiment
    self._label = label
    self._run: Any = None

  def write(self, data: Mapping[str, Any]):
    """Writes a row; the first one starts the run there."""
    if self._run is None:
      import wandb  # Optional, and slow to load.

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


class _Unfailing(Logger):
  """Writes to several loggers, by the place that warnings name.

  Drops rows that one of them cannot write, with a warning once a minute.
  """

  def __init__(self, loggers: Mapping[str, Logger]):
    self._loggers = loggers
    self._last_warning = dict.fromkeys(loggers, float("-inf"))

  def write(self, data: Mapping[str, Any]):
    for place, logger in self._loggers.items():
      try:
        logger.write(data)
      # A full disk is an OSError, but a network service may raise anything.
      except Exception as error:
        now = time.monotonic()
        if now - self._last_warning[place] > _WARNING_SECONDS:
          self._last_warning[place] = now
          logging.warning("%s cannot be written: %s", place, error)

  def close(self):
    for place, logger in self._loggers.items():
      try:
        logger.close()
      except Exception as error:  # As above.
        logging.warning("%s cannot be closed: %s", place, error)
