"""Evaluates a trained policy: returns of whole episodes, and a video of one.

  python -m programs.evaluate runs/cartpole --episodes=100 --video=episode.gif

Writes episodes.csv, a row for each episode, and evaluation.json: how they were
played, and their statistics. Rewards are the environment's own, never clipped.
The same seed gives the same episodes.
"""

import argparse
import csv
import importlib.metadata
import json
import math
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np

from acme_stac import (
  checkpointing,
  checks,
  environment_loop,
  environments,
  trained_policy,
)
from acme_stac.evaluation import scores
from acme_stac.evaluation.statistics import Estimate, mean_interval
from acme_stac.evaluation.text import counted, printable
from programs import commands
from programs.launch import ending, progress
from programs.run import arguments, paths, rate
from programs.run.errors import UserError

_RESULTS = ("episodes.csv", "evaluation.json")
_MAX_EPISODES = 10**6
_MAX_ENVIRONMENTS = 16
_PYTHON = "python:"
_ATARI = "atari:"
# What an evaluation depends on, where it is installed.
_PACKAGES = (
  "acme_stac", "jax", "jaxlib", "dm-haiku", "numpy", "ale-py", "dm-control",
  "mujoco", "gymnasium",
)
# What an environment is made with besides its options -> the flag that says it.
_FLAGS = {
  "environment": "--environment", "level": "--environment",
  "num_environments": "--environments", "seed": "--seed",
}


class _Task(NamedTuple):
  """What is played.

  Attributes:
    environment: its name.
    options: its options.
    remarks: what was chosen for the user, in sentences.
  """

  environment: str
  options: dict[str, Any]
  remarks: list[str]


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    UserError: if anything about its arguments cannot work.
  """
  arguments = _parser().parse_args(argv)
  arguments.policy = arguments.policy.expanduser()
  try:
    num_environments = _check_numbers(arguments)
    file = _file(arguments.policy)
    factory = _network_factory(arguments, file)
    policy = trained_policy.load_policy(file, arguments.greedy, factory)
    metadata = policy.metadata
    task = _task(arguments, metadata)
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error
  environment = _make(task, num_environments, arguments.seed)
  try:
    _check_specs(task, environment, metadata)
    output = _make_output(arguments)
    for remark in task.remarks:
      print(printable(remark))
    if arguments.video:
      _record(arguments, task, policy)
    try:
      episodes, cut_off = play(
        environment, policy, arguments.episodes, arguments.seed,
        arguments.max_episode_steps,
      )
    except environments.EnvironmentFailedError as error:
      print(f"Error: {printable(error)}", file=sys.stderr)
      return 1
  finally:
    environment.close()
  found = statistics(task.environment, episodes)
  _write(output, episodes, {
    "policy": str(arguments.policy),
    "checkpoint": str(
      file.relative_to(arguments.policy) if arguments.policy.is_dir() else file
    ),
    "agent": metadata.get("agent"),
    "environment_steps": metadata.get("environment_steps"),
    "environment": task.environment,
    "environment_options": task.options,
    "action_repeat": environment.action_repeat,
    "episodes": arguments.episodes,
    "environments": num_environments,
    "seed": arguments.seed,
    "greedy": arguments.greedy,
    "max_episode_steps": arguments.max_episode_steps,
    "episodes_cut_off": cut_off,
    "remarks": task.remarks,
    "metaparameters": {
      name: values.tolist() for name, values in policy.metaparameters.items()
    },
    "statistics": found,
    "versions": _versions(),
  })
  steps = metadata.get("environment_steps")
  trained = "" if steps is None else f" after {steps:,} environment steps"
  print(
    f"{metadata.get('agent') or 'A policy'}{trained} on"
    f" {printable(task.environment)},"
    f" {counted(arguments.episodes, 'episode')}"
    f" ({'greedy' if arguments.greedy else 'sampled'}, seed {arguments.seed})"
  )
  if cut_off:
    print(
      f"  {cut_off:,} of {arguments.episodes:,} episodes were cut off after"
      f" {arguments.max_episode_steps:,} steps (--max_episode_steps)"
    )
  for line in _describe(found):
    print(f"  {line}")
  for name in _RESULTS:
    print(f"  {printable(output / name)}")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = arguments.Parser("programs.evaluate", __doc__)
  parser.add_argument(
    "policy", type=pathlib.Path, metavar="RUN",
    help="a run's work directory, whose newest checkpoint is taken, or a file:"
    " a checkpoint, or what programs.export wrote",
  )
  parser.add_argument(
    "--episodes", type=int, default=100, help="100 unless set"
  )
  parser.add_argument(
    "--seed", type=int, default=0,
    help="of the environments, member i has seed + i, and of the samples",
  )
  parser.add_argument(
    "--greedy", action="store_true",
    help="take the most probable action instead of a sample",
  )
  parser.add_argument(
    "--environments", type=int,
    help="played at a time; must divide the episodes, as each plays equally"
    f" many. Up to {_MAX_ENVIRONMENTS} unless set",
  )
  parser.add_argument(
    "--max_episode_steps", type=int, default=environment_loop.MAX_EPISODE_STEPS,
    help="actions after which an episode is cut off;"
    f" {environment_loop.MAX_EPISODE_STEPS:,} unless set",
  )
  parser.add_argument(
    "--environment", help="another than the policy's own, with its options"
  )
  parser.add_argument(
    "--option", action="append", default=[], metavar="NAME=VALUE",
    help="an option of the environment; may be given several times",
  )
  parser.add_argument(
    "--protocol", choices=["papers", "machado"],
    help="of Atari, in place of the run's",
  )
  parser.add_argument(
    "--networks", metavar="python:MODULE:FACTORY",
    help="what made the networks of a policy file, if it was code of yours",
  )
  parser.add_argument(
    "--output", type=paths.path,
    help="folder of the results: WORKDIR/evaluation, or for a file"
    " FILE_evaluation beside it, unless set. What is in it is replaced",
  )
  parser.add_argument(
    "--video", type=pathlib.Path,
    help="a .gif or .mp4 file, for a video of one more episode",
  )
  parser.add_argument(
    "--video_fps", type=float,
    help="frames per second of the video, up to 50 of a GIF and 100 of an MP4;"
    " unless set it lasts ten seconds or so",
  )
  return parser


def _check_numbers(arguments: argparse.Namespace) -> int:
  """Returns the number of environments.

  Raises:
    ValueError: for numbers out of range, and a video of another kind.
  """
  episodes = arguments.episodes
  checks.check_integer("--episodes", episodes, 1, _MAX_EPISODES)
  checks.check_integer(
    "--max_episode_steps", arguments.max_episode_steps, 1
  )
  most = max(n for n in range(1, _MAX_ENVIRONMENTS + 1) if episodes % n == 0)
  number = arguments.environments or most
  if arguments.environments is not None:
    checks.check_integer("--environments", arguments.environments, 1)
    if episodes % number:
      raise ValueError(
        f"--environments must divide the {episodes} episodes, as each plays"
        f" equally many, but {number} does not; {most} does."
      )
  if not 0 <= arguments.seed <= 2**31 - number:
    raise ValueError(
      f"--seed must be in [0, {2**31 - number}], as member i of the {number}"
      f" environments has seed + i, got {arguments.seed}."
    )
  if arguments.video_fps is not None and not arguments.video:
    raise ValueError("--video_fps is of a video: give --video=FILE too.")
  if arguments.video:
    from acme_stac.evaluation import video

    if arguments.video.suffix not in video.MAX_FRAMES:
      raise ValueError(
        f"--video must be a {' or '.join(video.MAX_FRAMES)} file, got"
        f" {arguments.video}."
      )
    if not arguments.video.absolute().parent.is_dir():
      raise ValueError(
        f"There is no folder {arguments.video.absolute().parent} for the"
        " video: make it, or choose another --video."
      )
    if arguments.video_fps is not None:
      checks.check_number(
        f"--video_fps of a {arguments.video.suffix} file", arguments.video_fps,
        0.0, video.MAX_RATES[arguments.video.suffix], above=True,
      )
  return number


def _file(policy: pathlib.Path) -> pathlib.Path:
  """Returns the file that is played: a work directory's newest checkpoint.

  What is no policy is returned as it is: `trained_policy` says what is wrong.

  Raises:
    CheckpointError: (a ValueError) if no checkpoint can be read.
  """
  newest = checkpointing.read_newest(policy / "checkpoints")
  return newest[0] if newest else policy


def _task(arguments: argparse.Namespace, metadata: dict[str, Any]) -> _Task:
  """Returns what is to be played.

  Raises:
    ValueError: if arguments and policy do not say it.
    ImportError: if the environment's package is missing.
  """
  if arguments.environment == "":
    raise ValueError("--environment is empty: give a name, or leave it out.")
  own = metadata.get("environment")
  name = arguments.environment or own
  if name is None:
    raise ValueError(
      f"{arguments.policy} does not say what it was trained on: give"
      " --environment=NAME."
    )
  options = dict(metadata.get("environment_options") or {})
  if name != own:
    options = {}
  if not arguments.environment and environments.imports_code(name):
    _check_trust(arguments, "environment", name)
  given = _options(name, arguments.option)
  _check_options_trust(arguments, name, {
    option: value for option, value in options.items() if option not in given
  })
  remarks = []
  if arguments.protocol:
    if not name.startswith(_ATARI):
      raise ValueError(
        f"--protocol is of Atari, but the environment is {name}. Leave it out."
      )
    remarks = _set_protocol(options, given, arguments.protocol, metadata)
  return _Task(name, {**options, **given}, remarks)


def _check_trust(arguments: argparse.Namespace, flag: str, name: str):
  """Raises ValueError if code would run only because a file names it."""
  # A work directory is of a run that its user started; a file is of anybody.
  if not arguments.policy.is_dir():
    raise ValueError(
      f"{arguments.policy} was trained with code of its own, {name!r}. A file"
      f" does not say what code is to be run: give --{flag}={name} if you know"
      " it."
    )


def _check_options_trust(
  arguments: argparse.Namespace, name: str, options: dict[str, Any]
):
  """Raises ValueError if options of a file would choose code to import.

  Whoever gives the environment's name has not seen the options of the file.
  """
  family = name.partition(":")[0]
  if (
    family != _PYTHON.rstrip(":")
    and environments.imports_code(family, options)
    and not arguments.policy.is_dir()
  ):
    raise ValueError(
      f"{arguments.policy} has options of {name!r} that may choose code of its"
      f" own, {options}. A file does not say what code is to be run: give those"
      f" with a colon in them as --option NAME=VALUE, and --environment={name},"
      " if you know them."
    )


def _network_factory(
  arguments: argparse.Namespace, file: pathlib.Path
) -> Callable[..., Any] | None:
  """Returns what made the networks; None for those of this project.

  Raises:
    ValueError: if there is no policy, or the factory cannot be imported, or
      must be given.
  """
  metadata = trained_policy.read_metadata(file)
  name = arguments.networks or metadata.get("networks")
  if name is None:
    return None
  if not arguments.networks:
    _check_trust(arguments, "networks", name)
  return environments.import_factory(
    name.removeprefix(_PYTHON),
    "The factory of networks",
    "environment specs and a STACConfig",
  )


def _options(environment: str, texts: Sequence[str]) -> dict[str, Any]:
  """Returns NAME=VALUE as values; whether they fit, the environment checks.

  Raises:
    ValueError: for another form, and for an unknown environment.
    ImportError: if the environment's package is missing.
  """
  known = environments.option_types(environment)
  options: dict[str, Any] = {}
  for text in texts:
    name, equals, value = text.partition("=")
    if not (name and equals):
      raise ValueError(f"--option must be NAME=VALUE, got {text!r}.")
    if name in _FLAGS:
      raise ValueError(
        f"--option {text!r}: {name} is no option, the flag is {_FLAGS[name]}."
      )
    options[name] = arguments.option_value(value, known.get(name))
    try:
      json.dumps(options[name])
    except TypeError as error:
      raise ValueError(
        f"--option {text!r}: options are numbers, texts, and lists of them."
      ) from error
  return options


def _set_protocol(
  options: dict[str, Any],
  given: dict[str, Any],
  protocol: str,
  metadata: dict[str, Any],
) -> list[str]:
  """Changes a run's options to those of a protocol, and returns remarks.

  The actions stay those that the policy has.

  Args:
    options: of the run; changed.
    given: of the command line, which win.
    protocol: name of the protocol.
    metadata: of the policy.
  """
  from acme_stac.environments import atari

  preset = atari.PROTOCOLS[protocol]
  for name in preset:
    options.pop(name, None)
  options["protocol"] = protocol
  number = metadata["environment_spec"]["actions"].get("num_values")
  full = number == atari.NUM_ACTIONS
  if "full_action_set" in given or full == preset["full_action_set"]:
    return []
  options["full_action_set"] = full
  return [
    f"The policy has {number} actions, so full_action_set={full} although the"
    f" protocol {protocol!r} has {preset['full_action_set']}."
  ]


def _make_output(arguments: argparse.Namespace) -> pathlib.Path:
  """Makes the folder of the results; raises UserError if it cannot be."""
  path = arguments.policy
  output = arguments.output or (
    path / "evaluation"
    if path.is_dir()
    else path.with_name(f"{path.stem}_evaluation")
  )
  paths.make_directory(output, "--output")
  paths.check_files([output / name for name in _RESULTS], "--output")
  if arguments.video:
    paths.check_files([arguments.video], "--video")
  return output


def _make(
  task: _Task, num_environments: int, seed: int, **options: Any
) -> environments.BatchedEnvironment:
  """Makes environments; raises UserError if they cannot be made."""
  try:
    return environments.make_batched(
      task.environment, num_environments, seed, **options, **task.options
    )
  # Whatever an environment may raise.
  except (Exception, SystemExit) as error:
    raise UserError(
      f"{task.environment} with options {task.options} cannot be made:"
      f" {str(error) or environments.base.describe_error(error)}"
    ) from error


def _check_specs(
  task: _Task,
  environment: environments.BatchedEnvironment,
  metadata: dict[str, Any],
):
  """Raises UserError unless the policy can act in the environment."""
  spec = environments.environment_spec(environment)
  # As a file holds it: tuples are lists there.
  have = json.loads(json.dumps(environments.spec_to_json(spec)))
  wanted = metadata["environment_spec"]
  fits = {
    "observations": environments.observations_fit(have, wanted),
    "actions": have["actions"] == wanted["actions"],
  }
  for name, is_fit in fits.items():
    if not is_fit:
      raise UserError(
        f"The policy does not fit {task.environment} with options"
        f" {task.options}: its {name} are {json.dumps(have[name])}, but it was"
        f" trained on {json.dumps(wanted[name])}. Change --environment or"
        " --option."
      )


class _Actor:
  """What `environment_loop` acts by: a trained policy in place of an actor."""

  def __init__(
    self,
    policy: trained_policy.TrainedPolicy,
    num_environments: int,
    seed: int,
    observed: Callable[[dm_env.TimeStep], None],
  ):
    """Makes an actor; `observed` is called with every time step."""
    self._policy = policy
    self._state = policy.initial_state(num_environments, seed)
    self._observed = observed

  def observe_first(self, timestep: dm_env.TimeStep):
    self._state.begins[:] = timestep.step_type == dm_env.StepType.FIRST

  def select_action(self, observation: Any) -> np.ndarray:
    return self._policy(observation, self._state)

  def observe(self, action: Any, next_timestep: dm_env.TimeStep):
    del action
    self._state.begins[:] = next_timestep.step_type == dm_env.StepType.FIRST
    self._observed(next_timestep)


class _Books:
  """Counts steps, and shows them and the episodes."""

  def __init__(self, num_episodes: int):
    self._num_episodes = num_episodes
    self._steps = 0
    self._started: float | None = None
    self._rate = rate.MovingRate()
    self.line = progress.Progress(describe=_describe_progress)

  def observed(self, timestep: dm_env.TimeStep):
    """Counts the steps of the batch."""
    if self._started is None:  # The policy is compiled by now.
      self._started = time.monotonic()
    self._steps += int(np.sum(timestep.step_type != dm_env.StepType.FIRST))
    self._rate.add(self._steps)

  def show(self, done: int):
    """Shows how far it is, after so many episodes."""
    assert self._started is not None
    self.line.show({
      "done": done,
      "of": self._num_episodes,
      "rate": self._rate.per_second(ended=True),
      "seconds": time.monotonic() - self._started,
    })


def _describe_progress(status: dict[str, Any]) -> list[str]:
  done, number, seconds = status["done"], status["of"], status["seconds"]
  parts = [f"{done:,}/{number:,} episodes"]
  if 0 < done < number:
    left = progress.duration(seconds / done * (number - done))
    parts.append(f"{left} left")
  if status["rate"] is not None:
    parts.append(f"{status['rate']:,.0f} steps/s")
  return parts


def play(
  environment: environments.BatchedEnvironment,
  policy: trained_policy.TrainedPolicy,
  num_episodes: int,
  seed: int,
  max_episode_steps: int = environment_loop.MAX_EPISODE_STEPS,
) -> environment_loop.Evaluation:
  """Plays whole episodes.

  Args:
    environment: N environments, each of which plays equally many.
    policy: acts.
    num_episodes: a multiple of N.
    seed: of the policy's samples.
    max_episode_steps: actions after which an episode is cut off.

  Returns:
    The episodes, member by member.

  Raises:
    EnvironmentFailedError: if the environment raises, or gives what its specs
      do not allow.
  """
  guarded = environments.GuardedEnvironment(environment)
  number = environment.num_environments
  books = _Books(num_episodes)
  actor: Any = _Actor(policy, number, seed, books.observed)
  try:
    with ending.StopRequest("Stopping; nothing is written.") as stop:
      found = environment_loop.evaluate(
        guarded, actor, num_episodes, lambda: bool(stop), max_episode_steps,
        books.show,
      )
  finally:
    books.line.close()
  if found is None:
    raise KeyboardInterrupt
  if not np.isfinite([e.episode_return for e in found.episodes]).all():
    raise guarded.failure("The environment gave a reward that is not finite.")
  return found._replace(
    episodes=sorted(found.episodes, key=lambda episode: episode.member)
  )


def statistics(
  environment: str, episodes: Sequence[Any]
) -> dict[str, float | None]:
  """Returns what is known of the mean return, and of the lengths.

  The 95% interval is that of a percentile bootstrap over episodes, which never
  leaves the range of their returns. One episode has neither an interval nor a
  standard deviation.

  Args:
    environment: its name; it decides which scores there are.
    episodes: of `play`.
  """
  returns = np.array([episode.episode_return for episode in episodes])
  lengths = np.array([episode.length for episode in episodes])
  number, mean = len(returns), float(returns.mean())
  std = low = high = None
  if number > 1:
    std = float(returns.std(ddof=1))
    _, low, high = mean_interval(returns)
  found = {
    "return_mean": mean,
    "return_mean_low": low,
    "return_mean_high": high,
    "return_std": std,
    "return_median": float(np.median(returns)),
    "return_min": float(returns.min()),
    "return_max": float(returns.max()),
    "length_mean": float(lengths.mean()),
    "length_min": float(lengths.min()),
    "length_max": float(lengths.max()),
    "truncated_share": float(np.mean([e.truncated for e in episodes])),
  }
  if scores.game_of(environment) is not None:
    found["human_normalised_score"] = scores.normalised(environment, mean)
  elif environment.partition(":")[0] in scores.CONTROL_FAMILIES:
    found["share_of_1000"] = scores.normalised(environment, mean)
  return found


def _describe(found: dict[str, Any]) -> list[str]:
  """Returns statistics as lines of text."""
  mean, low, high = (
    math.nan if found[name] is None else found[name]
    for name in ("return_mean", "return_mean_low", "return_mean_high")
  )
  line = f"return: mean {Estimate(mean, low, high)}"
  if found["return_std"] is not None:
    line += (
      " (95% interval, bootstrap over episodes), standard deviation"
      f" {_rounded(found['return_std'])}"
    )
  lines = [
    line,
    f"return: median {_rounded(found['return_median'])}, min"
    f" {_rounded(found['return_min'])}, max {_rounded(found['return_max'])}",
    f"length: mean {_rounded(found['length_mean'])} actions, min"
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
      f"scale: returns of DM control are in [0, 1000]; this is"
      f" {found['share_of_1000']:.1%}"
    )
  return lines


def _rounded(value: float) -> str:
  return str(Estimate(value, math.nan, math.nan))


def _record(
  arguments: argparse.Namespace,
  task: _Task,
  policy: trained_policy.TrainedPolicy,
):
  """Writes the video; raises UserError if the environment cannot be drawn."""
  from acme_stac.evaluation import video

  options = {}
  if task.environment.startswith("gymnasium:"):
    options = {"render_mode": "rgb_array", **task.options}
  task = task._replace(options={**task.options, **options})
  path = arguments.video
  print(f"{printable(path)}: an episode is played ...", flush=True)
  environment = _make(task, 1, arguments.seed)
  try:
    film = video.record(
      environment, policy, arguments.seed, video.MAX_FRAMES[path.suffix]
    )
  except Exception as error:  # Each renderer has errors of its own.
    raise UserError(
      f"{task.environment} cannot be drawn: {error}\nMend that, or leave out"
      " --video."
    ) from error
  finally:
    environment.close()
  fps = arguments.video_fps or video.frame_rate(len(film.frames))
  try:
    video.write(path, film.frames, fps)
  except OSError as error:
    raise UserError(
      f"The video cannot be written: {error}. Choose another --video."
    ) from error
  every = "" if film.stride == 1 else f", one for {film.stride} actions"
  print(
    f"{printable(path)}: return {film.episode_return:,.6g} in"
    f" {film.length:,} actions, {len(film.frames)} frames{every},"
    f" {fps:g} per second",
    flush=True,
  )


def _write(
  output: pathlib.Path, episodes: Sequence[Any], described: dict[str, Any]
):
  """Writes the results; raises UserError if that fails."""
  try:
    with open(output / "episodes.csv", "w", newline="") as file:
      writer = csv.writer(file)
      writer.writerow(["member", "episode", "return", "length", "truncated"])
      numbers: dict[int, int] = {}
      for episode in episodes:
        number = numbers.get(episode.member, 0)
        numbers[episode.member] = number + 1
        writer.writerow([
          episode.member, number, episode.episode_return, episode.length,
          int(episode.truncated),
        ])
    text = json.dumps(described, indent=2) + "\n"
    (output / "evaluation.json").write_text(text)
  except OSError as error:
    raise UserError(
      f"The results cannot be written to {output}: {error}. Choose another"
      " folder with --output."
    ) from error


def _versions() -> dict[str, str]:
  """Returns the versions of Python and of what is installed."""
  found = {"python": platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


if __name__ == "__main__":
  ending.leave_no_children()
  commands.run(main)
