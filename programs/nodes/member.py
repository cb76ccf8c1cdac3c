"""One of the runs that a compiled program trains side by side."""

import collections
import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from acme_stac.core.types import TrainingState
from acme_stac.evaluation.logs import RUNS_SIDE_BY_SIDE
from acme_stac.on_device import Evaluation
from acme_stac.training.learner import flatten_metrics
from programs.nodes import evaluator, logs
from programs.nodes.checkpoints import Checkpoints
from programs.run.experiment import Experiment

# The training return is a mean over at least so many of the last episodes.
_RETURN_WINDOW = 100
# Runs side by side have a step in common only if one that was interrupted while
# it wrote its checkpoint still has the one before.
_LEAST_CHECKPOINTS = 2


class Interval(NamedTuple):
  """What a run has done since its last row.

  Attributes:
    step: updates of the whole run.
    updates: number of updates.
    seconds: that they took.
    metrics: of the newest update, by name; scalars, or [P].
    episodes: number of episodes that ended.
    return_sum: sum of their returns.
    length_sum: sum of their lengths, in actions.
    runs: number of runs that shared these seconds.
  """

  step: int
  updates: int
  seconds: float
  metrics: Mapping[str, np.ndarray]
  episodes: int
  return_sum: float
  length_sum: float
  runs: int


class Member:
  """A run: its state on the host, its logs and its checkpoints.

  Attributes:
    experiment: the run.
    checkpoints: written from the state.
    num_steps: updates done.
    episode_return: mean return of the last episodes, NaN before the first.
    evaluation: mean return of the last evaluation, None before the first.
  """

  def __init__(self, experiment: Experiment, template: TrainingState):
    """Restores the newest checkpoint if there is one.

    Args:
      experiment: the run.
      template: shapes and dtypes of the state.

    Raises:
      HopelessError: if there are checkpoints but none can be read.
    """
    self.experiment = experiment
    self.num_steps = 0
    self.episode_return = math.nan
    self.evaluation: float | None = None
    self._state = template
    self._returns = collections.deque[tuple[float, int]]()
    self._warned_of_skipped = False
    self.checkpoints = Checkpoints(
      experiment, self, experiment.checkpoint_every_seconds,
      max(experiment.checkpoints_to_keep, _LEAST_CHECKPOINTS),
    )
    self._learner_log = logs.make_logger(experiment, "learner", dashboards=True)
    self._episode_log = logs.make_logger(experiment, "episodes_actor_0")
    self._evaluator_log = logs.make_logger(
      experiment, "evaluator", dashboards=True
    )

  def save(self) -> TrainingState:
    """Returns the state, or its template before the first."""
    return self._state

  def restore(self, state: TrainingState):
    """Sets the state, of NumPy arrays."""
    self._state = state
    self.num_steps = int(state.step)

  @property
  def _policy_age(self) -> int:
    """Updates between acting in a trajectory's first row and learning."""
    config = self.experiment.config
    fresh = config.trajectory_length - config.trajectory_overlap
    return config.batches_ahead - (-config.trajectory_overlap // fresh)

  def write_rows(self, interval: Interval):
    """Writes a row about the learner, and one about the episodes that ended."""
    step = interval.step
    self._warn_of_skipped(int(interval.metrics["skipped_updates"]), step)
    self._count(interval)
    steps = self.experiment.config.steps_per_update
    rate = interval.updates / interval.seconds
    self._learner_log.write({
      "learner_steps": step,
      "environment_steps": step * steps,
      **flatten_metrics(dict(interval.metrics)),
      "updates_per_second": rate,
      "environment_steps_per_second": rate * steps,
      "episode_return": self.episode_return,
      # Nothing is queued. As elsewhere, the age of what acted in a
      # trajectory's first row.
      "policy_age_mean": float(self._policy_age),
      "policy_age_max": self._policy_age,
      "share_waiting_for_data": 0.0,
      "queue_fill": 0.0,
      "dropped_trajectories": 0,
      **({RUNS_SIDE_BY_SIDE: interval.runs} if interval.runs > 1 else {}),
    })
    if interval.episodes:
      self._episode_log.write({
        "actor_steps": step * steps // (
          self.experiment.environments_per_actor
          * self.experiment.config.action_repeat
        ),
        "environment": self.experiment.environment,
        "episodes": interval.episodes,
        "episode_return": interval.return_sum / interval.episodes,
        "length": interval.length_sum / interval.episodes,
      })

  def _count(self, interval: Interval):
    if not interval.episodes:
      return
    self._returns.append((interval.return_sum, interval.episodes))
    episodes = sum(number for _, number in self._returns)
    while episodes - self._returns[0][1] >= _RETURN_WINDOW:
      episodes -= self._returns.popleft()[1]
    self.episode_return = sum(of for of, _ in self._returns) / episodes

  def _warn_of_skipped(self, skipped: int, step: int):
    """Logs a warning at the first skipped update; metrics count the rest."""
    if skipped and not self._warned_of_skipped:
      self._warned_of_skipped = True
      logging.warning(
        "%d of %d updates of %s were skipped, because a loss, a gradient's norm"
        " or a new parameter was not finite. See skipped_updates in its"
        " logs/learner.csv.",
        skipped, step, self.experiment.workdir,
      )

  def write_evaluation(self, step: int, episodes: Evaluation):
    """Writes the row of an evaluation.

    Args:
      step: updates that the evaluated parameters have had.
      episodes: of NumPy arrays [E].
    """
    row = evaluator.make_row(
      self.experiment, step, np.asarray(episodes.episode_return),
      np.asarray(episodes.length), int(np.sum(episodes.cut_off)),
    )
    self._evaluator_log.write(row)
    self.evaluation = row["episode_return_mean"]

  def close(self):
    """Closes the logs."""
    for log in (self._learner_log, self._episode_log, self._evaluator_log):
      log.close()
