"""Measures `programs.train --launch=colocated`, including its start."""

import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from acme_stac.evaluation import logs
from programs.benchmark import measuring

_LOG_SECONDS = 0.5


def measure(
  flags: Sequence[str],
  cache: str,
  start_seconds: float,
  warm_up: float,
  seconds: float,
) -> dict[str, Any]:
  """Runs a training program and measures its rates.

  Args:
    flags: flags of programs.train, without --workdir and --launch.
    cache: directory of JAX's compilation cache.
    start_seconds: maximum wait for the first update.
    warm_up: seconds between the first update and the measurement.
    seconds: length of the measurement.

  Returns:
    Frames per second, seconds to the first update, how the learner and the
    actors spend their time, and the acting policy's age in updates.

  Raises:
    RuntimeError: if the program ended, or did not update in time.
  """
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
    workdir = pathlib.Path(directory)
    run_logs = workdir / "run" / "logs"
    command = [
      sys.executable, "-m", "programs.train", *flags, "--launch=colocated",
      f"--config.log_every_seconds={_LOG_SECONDS}",
      "--config.evaluation.episodes=0",
      "--config.num_environment_steps=2000000000",
      f"--workdir={workdir / 'run'}",
    ]
    # Its results are not kept, so it is killed without an orderly end.
    with measuring.running(
      command, workdir, {"JAX_COMPILATION_CACHE_DIR": cache}, end_seconds=0.0
    ) as program:
      program.wait_for(
        lambda: not logs.read(run_logs / "learner.csv").empty, start_seconds
      )
      first_update = time.monotonic() - program.started
      time.sleep(warm_up)
      skipped = {path.name: len(logs.read(path)) for path in _files(run_logs)}
      time.sleep(seconds)
      program.check()
      figures = _figures(run_logs, skipped)
  return {"first_update_seconds": first_update, **figures}


def _files(run_logs: pathlib.Path) -> list[pathlib.Path]:
  return [run_logs / "learner.csv", *sorted(run_logs.glob("actor_*.csv"))]


def _figures(
  run_logs: pathlib.Path, skipped: dict[str, int]
) -> dict[str, float]:
  """Returns the means of the rows after the skipped ones."""
  learner, *actors = [
    logs.read(path).iloc[max(1, skipped.get(path.name, 0)) :]
    for path in _files(run_logs)
  ]
  acting = pd.concat(actors)
  if learner.empty or acting.empty:
    raise RuntimeError("There were too few updates; raise --seconds_per_row.")
  rates = learner["environment_steps_per_second"]
  steps = learner["learner_steps"].diff()
  # The first row's number of updates is unknown; the mean of the others stands
  # in for it.
  weights = (steps.fillna(steps.mean()).fillna(1.0) / rates).to_numpy()
  return {
    "frames_per_second": float(np.sum(weights * rates) / np.sum(weights)),
    "learner_waits": float(
      np.average(learner["share_waiting_for_data"], weights=weights)
    ),
    "policy_age": float(
      np.average(learner["policy_age_mean"], weights=weights)
    ),
    **{
      f"actors_{part}": float(acting[f"share_{name}"].mean())
      for part, name in {
        "environment": "environment",
        "inference": "inference",
        "writing": "writing",
        "blocked": "blocked_by_queue",
        "wait": "waiting_for_learner",
      }.items()
    },
  }
