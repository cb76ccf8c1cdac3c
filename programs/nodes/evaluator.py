"""The evaluator node: plays episodes with the newest parameters."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from acme_stac import environment_loop
from acme_stac.environments import EnvironmentFailedError
from acme_stac.evaluation import scores
from acme_stac.networks import make_policy
from acme_stac.training.variables import VariableSource
from programs.nodes import building, logs
from programs.nodes.environments import Environments
from programs.nodes.randomness import Part, environment_seed, random_key
from programs.run.experiment import Experiment

_MAX_ENVIRONMENTS = 16
_POLL_SECONDS = 0.2


class Evaluator:
  """Evaluates the newest parameters on fresh environments."""

  def __init__(
    self,
    experiment: Experiment,
    variables: VariableSource,
    counter: Any,
    should_stop: Callable[[], bool],
    device: Any = None,
  ):
    """Makes an evaluator; the arguments are those of `Actor`."""
    self._experiment = experiment
    self._counter = counter
    self._should_stop = should_stop
    (self._initial_step,) = map(int, variables.get_variables(["version"]))
    builder = building.make_builder(
      experiment, should_stop, inference_device=device
    )
    spec = experiment.environment_spec
    self._actor = builder.make_actor(
      random_key(experiment, self._initial_step, Part.EVALUATOR),
      make_policy(
        builder.make_networks(spec),
        experiment.config,
        experiment.evaluation_greedy,
      ),
      variables,
    )
    self._log = logs.make_logger(experiment, "evaluator", dashboards=True)
    self._environments = Environments(
      experiment,
      min(experiment.evaluation_episodes, _MAX_ENVIRONMENTS),
      lambda number: environment_seed(
        experiment, self._initial_step, Part.EVALUATOR, number
      ),
    )

  def evaluate(self):
    """Fetches parameters and runs the episodes of one evaluation.

    Raises:
      HopelessError: if the environment failed too often.
    """
    version = self._actor.fetch_variables()
    evaluation = self._play()
    if evaluation is None:
      return
    row = make_row(
      self._experiment,
      version,
      [episode.episode_return for episode in evaluation.episodes],
      [episode.length for episode in evaluation.episodes],
      evaluation.num_cut_off,
    )
    self._log.write(row)
    self._counter.report_evaluation(
      row["episode_return_mean"], row["episodes"], row["episodes_cut_off"]
    )

  def _play(self) -> environment_loop.Evaluation | None:
    """Runs the episodes; returns None if the program is ending."""
    while True:
      environment = self._environments.make()
      try:
        evaluation = environment_loop.evaluate(
          environment,
          self._actor,
          self._experiment.evaluation_episodes,
          self._should_stop,
          self._experiment.evaluation_max_episode_steps,
        )
        episodes = evaluation.episodes if evaluation else []
        if not np.isfinite([e.episode_return for e in episodes]).all():
          raise environment.failure(
            "The environment gave a reward that is not finite."
          )
      except EnvironmentFailedError as error:
        self._environments.record_failure(environment, error)
      else:
        environment.close()
        return evaluation

  def close(self):
    """Closes the log."""
    self._log.close()

  def run(self):
    """Evaluates every `evaluation_every_steps` steps and once at the end."""
    every = self._experiment.evaluation_every_steps
    steps = self._initial_step * self._experiment.config.steps_per_update
    due = steps // every * every
    while not self._should_stop():
      status = self._counter.status()
      if status["finished"] or status["steps"] >= due:
        self.evaluate()
        due = (status["steps"] // every + 1) * every
      if status["finished"]:
        return
      time.sleep(_POLL_SECONDS)


def make_row(
  experiment: Experiment,
  step: int,
  returns: Sequence[float] | np.ndarray,
  lengths: Sequence[int] | np.ndarray,
  num_cut_off: int,
) -> dict[str, Any]:
  """Returns the row of the evaluator's log about one evaluation.

  Args:
    experiment: the run.
    step: updates that the evaluated parameters have had.
    returns: of the episodes.
    lengths: of the episodes, in actions.
    num_cut_off: episodes that reached the limit of actions.
  """
  mean_return = float(np.mean(returns))
  row: dict[str, Any] = {}
  game = scores.game_of(experiment.environment)
  if game is not None:
    row["human_normalised_score"] = scores.human_normalised_score(
      game, mean_return
    )
  return {
    **row,
    "environment_steps": step * experiment.config.steps_per_update,
    "learner_steps": step,
    "episodes": len(returns),
    "episodes_cut_off": num_cut_off,
    "episode_return_mean": mean_return,
    "episode_return_std": float(np.std(returns)),
    "episode_return_min": float(np.min(returns)),
    "episode_return_max": float(np.max(returns)),
    "episode_length_mean": float(np.mean(lengths)),
    "greedy": int(experiment.evaluation_greedy),
  }
