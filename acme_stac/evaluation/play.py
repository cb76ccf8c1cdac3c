"""Plays whole episodes with a trained policy and summarises their returns."""

import importlib.metadata
import json
import math
import pathlib
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np
import pandas as pd

from acme_stac import (
  checkpointing,
  environment_loop,
  environments,
  policy_file,
  trained_policy,
)
from acme_stac.environment_loop import (
  MAX_EPISODE_STEPS,
  Episode,
  Evaluation,
)
from acme_stac.evaluation import scores
from acme_stac.evaluation.statistics import Estimate, mean_interval

# Packages that an evaluation depends on, if they are installed.
_PACKAGES = (
  "acme_stac", "jax", "jaxlib", "dm-haiku", "numpy", "ale-py", "dm-control",
  "mujoco", "gymnasium",
)


class Task(NamedTuple):
  """The environment of an evaluation.

  Attributes:
    environment: its name.
    options: its options.
    remarks: sentences about what was chosen on the user's behalf.
  """

  environment: str
  options: dict[str, Any]
  remarks: list[str]

  def make(
    self, num_environments: int, seed: int, **options: Any
  ) -> environments.BatchedEnvironment:
    """Makes environments; the task's own options override `options`.

    Raises:
      ValueError: if they cannot be made.
    """
    try:
      return environments.make_batched(
        self.environment, num_environments, seed, **{**options, **self.options}
      )
    except Exception as error:  # Environments may raise anything.
      raise ValueError(
        f"{self.environment} with options {self.options} cannot be made:"
        f" {str(error) or environments.errors.describe_error(error)}"
      ) from error


def newest_file(path: pathlib.Path) -> pathlib.Path:
  """Returns the newest checkpoint of a work directory; other paths unchanged.

  Raises:
    CheckpointError: (a ValueError) if no checkpoint can be read.
  """
  newest = checkpointing.read_newest(path / "checkpoints")
  return newest[0] if newest else path


def networks_of(path: pathlib.Path) -> str | None:
  """Returns the name of the factory that made a policy's networks, if any.

  Raises:
    CheckpointError: (a ValueError) if there is no policy.
  """
  return policy_file.read_metadata(path).get("networks")


def with_protocol(
  task: Task,
  protocol: str,
  given: dict[str, Any],
  environment_spec: dict[str, Any],
) -> Task:
  """Returns an Atari task under another protocol, with the policy's actions.

  Args:
    task: task to change.
    protocol: name of the protocol.
    given: options that the user gave, which override the protocol's.
    environment_spec: spec that the policy was trained on, as JSON.
  """
  # Imports ale-py, which evaluations of other environments do not need.
  from acme_stac.environments import atari

  preset = atari.PROTOCOLS[protocol]
  options = {
    name: value
    for name, value in task.options.items()
    if name not in preset or name in given
  }
  options["protocol"] = protocol
  number = environment_spec["actions"].get("num_values")
  full = number == atari.NUM_ACTIONS
  remarks = []
  if "full_action_set" not in given and full != preset["full_action_set"]:
    options["full_action_set"] = full
    remarks.append(
      f"The policy has {number} actions, so full_action_set={full} although the"
      f" protocol {protocol!r} has {preset['full_action_set']}."
    )
  return Task(task.environment, options, remarks)


def check_specs(
  policy: trained_policy.TrainedPolicy,
  environment: environments.BatchedEnvironment,
  task: Task,
):
  """Raises ValueError unless a policy can act in an environment."""
  spec = environments.environment_spec(environment)
  # Turns tuples into lists, as in the file.
  have = json.loads(json.dumps(environments.spec_to_json(spec)))
  wanted = policy.metadata["environment_spec"]
  fits = {
    "observations": environments.observations_fit(have, wanted),
    "actions": have["actions"] == wanted["actions"],
  }
  for name, is_fit in fits.items():
    if not is_fit:
      raise ValueError(
        f"The policy does not fit {task.environment} with options"
        f" {task.options}: its {name} are {json.dumps(have[name])}, but it was"
        f" trained on {json.dumps(wanted[name])}. Change --environment or"
        " --option."
      )


class _Actor:
  """Acts with a trained policy in `environment_loop`, and counts actions."""

  def __init__(
    self, policy: trained_policy.TrainedPolicy, num_environments: int, seed: int
  ):
    self._policy = policy
    self._state = policy.initial_state(num_environments, seed)
    self._actions = np.zeros(0)
    self.num_actions = 0

  def observe_first(self, timestep: dm_env.TimeStep):
    self._state.begins[:] = timestep.step_type == dm_env.StepType.FIRST

  def start(self, timestep: dm_env.TimeStep):
    self._actions = self._policy(timestep.observation, self._state)

  def finish(self) -> np.ndarray:
    return self._actions

  def observe(self, next_timestep: dm_env.TimeStep):
    begins = next_timestep.step_type == dm_env.StepType.FIRST
    self._state.begins[:] = begins
    self.num_actions += int(np.sum(~begins))


def play(
  environment: environments.BatchedEnvironment,
  policy: trained_policy.TrainedPolicy,
  num_episodes: int,
  seed: int,
  max_episode_steps: int = MAX_EPISODE_STEPS,
  should_stop: Callable[[], bool] = lambda: False,
  report_progress: Callable[[int, int], None] = lambda episodes, actions: None,
) -> Evaluation | None:
  """Plays whole episodes.

  Args:
    environment: N environments, which play equally many episodes each.
    policy: policy to act with.
    num_episodes: a multiple of N.
    seed: seed of the policy's samples.
    max_episode_steps: actions after which an episode is cut off.
    should_stop: ends the evaluation early if True.
    report_progress: called after every step with the episodes and the actions
      so far.

  Returns:
    The episodes, member by member; None if stopped early.

  Raises:
    EnvironmentFailedError: if the environment raises, or its time steps do not
      conform to its specs.
  """
  guarded = environments.GuardedEnvironment(environment)
  actor: Any = _Actor(policy, environment.num_environments, seed)
  found = environment_loop.evaluate(
    guarded, actor, num_episodes, should_stop, max_episode_steps,
    lambda episodes: report_progress(episodes, actor.num_actions),
  )
  if found is None:
    return None
  if not np.isfinite([e.episode_return for e in found.episodes]).all():
    raise guarded.failure("The environment gave a reward that is not finite.")
  return found._replace(
    episodes=sorted(found.episodes, key=lambda episode: episode.member)
  )


def statistics(
  environment: str, episodes: Sequence[Episode]
) -> dict[str, float | None]:
  """Returns statistics of the returns and lengths of episodes.

  The 95% interval of the mean is a percentile bootstrap over episodes. A single
  episode has neither an interval nor a standard deviation.

  Args:
    environment: name of the environment, which decides what scores there are.
    episodes: episodes to summarise.
  """
  returns = np.array([episode.episode_return for episode in episodes])
  lengths = np.array([episode.length for episode in episodes])
  mean = float(returns.mean())
  interval = mean_interval(returns) if len(returns) > 1 else None
  found = {
    "return_mean": mean,
    "return_mean_low": interval and interval.low,
    "return_mean_high": interval and interval.high,
    "return_std": interval and float(returns.std(ddof=1)),
    "return_median": float(np.median(returns)),
    "return_min": float(returns.min()),
    "return_max": float(returns.max()),
    "length_mean": float(lengths.mean()),
    "length_min": float(lengths.min()),
    "length_max": float(lengths.max()),
    "truncated_share": float(np.mean([e.truncated for e in episodes])),
  }
  game = scores.game_of(environment)
  if game is not None:
    found["human_normalised_score"] = scores.human_normalised_score(game, mean)
  elif environment.partition(":")[0] in scores.CONTROL_FAMILIES:
    found["share_of_1000"] = mean / 1000.0
  return found


def describe(found: dict[str, Any]) -> list[str]:
  """Returns `statistics` as lines of text."""
  def shown(name: str) -> str:
    return str(Estimate(found[name], math.nan, math.nan))

  mean = shown("return_mean")
  if found["return_std"] is not None:
    interval = Estimate(
      found["return_mean"], found["return_mean_low"], found["return_mean_high"]
    )
    mean = (
      f"{interval} (95% interval, bootstrap over episodes),"
      f" standard deviation {shown('return_std')}"
    )
  lines = [
    f"return: mean {mean}",
    f"return: median {shown('return_median')}, min {shown('return_min')},"
    f" max {shown('return_max')}",
    f"length: mean {shown('length_mean')} actions, min"
    f" {found['length_min']:,.0f}, max {found['length_max']:,.0f};"
    f" {found['truncated_share']:.0%} ended by a limit",
  ]
  if "human_normalised_score" in found:
    lines.append(
      f"human-normalised score: {found['human_normalised_score']:.4g} (0 is"
      " random play, 1 the human)"
    )
  if "share_of_1000" in found:
    lines.append(
      "scale: returns of DM control are in [0, 1000]; this is"
      f" {found['share_of_1000']:.1%}"
    )
  return lines


def write(
  table: pathlib.Path,
  summary: pathlib.Path,
  episodes: Sequence[Episode],
  described: dict[str, Any],
):
  """Writes the results of an evaluation.

  Args:
    table: CSV file to write, with one row per episode.
    summary: JSON file to write, with `described` and versions of packages.
    episodes: the episodes, member by member.
    described: how they were played and their statistics, JSON-serialisable.

  Raises:
    OSError: if a file cannot be written.
  """
  columns = ["member", "return", "length", "truncated"]
  rows = pd.DataFrame(episodes, columns=columns)
  rows.insert(1, "episode", rows.groupby("member").cumcount())
  rows.astype({"truncated": int}).to_csv(table, index=False)
  text = json.dumps({**described, "versions": _versions()}, indent=2)
  summary.write_text(text + "\n")


def _versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that matter."""
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
