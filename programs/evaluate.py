"""Evaluates a trained policy: returns of whole episodes, and a video of one.

  python -m programs.evaluate runs/cartpole --episodes=100 --video=episode.gif

Writes episodes.csv, with a row for each episode, and evaluation.json, with the
settings and statistics. Rewards are the environment's own, never clipped. The
same seed gives the same episodes.
"""

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import acme_stac
from acme_stac import evaluation
from acme_stac.checks import check_integer, check_number
from acme_stac.evaluation.text import counted, printable
from programs import commands
from programs.launch import ending, progress
from programs.run import arguments, paths, workdir
from programs.run.errors import UserError

_TABLE, _SUMMARY = "episodes.csv", "evaluation.json"
_MAX_ENVIRONMENTS = 16


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code.

  Raises:
    UserError: if the policy cannot be evaluated as asked.
  """
  options = _parser().parse_args(argv)
  try:
    _check(options)
    file = evaluation.play.newest_file(options.policy)
    workdir.check_is_run(file)
    policy = _load(options, file)
    task = _task(options, policy.metadata)
    environment = task.make(options.environments, options.seed)
  except (ValueError, ImportError) as error:
    raise UserError(str(error)) from error
  try:
    return _evaluate(options, file, policy, task, environment)
  except acme_stac.environments.EnvironmentFailedError as error:
    print(f"Error: {printable(error)}", file=sys.stderr)
    return 1
  finally:
    environment.close()


def _evaluate(
  options: argparse.Namespace, file: pathlib.Path, policy: Any, task: Any,
  environment: Any,
) -> int:
  """Plays the episodes, writes and prints results; returns the exit code."""
  try:
    evaluation.play.check_specs(policy, environment, task)
  except ValueError as error:
    raise UserError(str(error)) from error
  output = _make_output(options)
  for remark in task.remarks:
    print(printable(remark))
  if options.video:
    _record(options, task, policy)
  found = _play(options, policy, environment)
  metadata = policy.metadata
  statistics = evaluation.play.statistics(task.environment, found.episodes)
  summary = {
    "policy": str(options.policy),
    "checkpoint": str(
      file.relative_to(options.policy) if options.policy.is_dir() else file
    ),
    "agent": metadata.get("agent"),
    "environment_steps": metadata.get("environment_steps"),
    "environment": task.environment,
    "environment_options": task.options,
    "action_repeat": environment.action_repeat,
    "episodes": options.episodes,
    "environments": options.environments,
    "seed": options.seed,
    "greedy": options.greedy,
    "max_episode_steps": options.max_episode_steps,
    "episodes_cut_off": found.num_cut_off,
    "remarks": task.remarks,
    "metaparameters": {
      name: values.tolist() for name, values in policy.metaparameters.items()
    },
    "statistics": statistics,
  }
  try:
    evaluation.play.write(
      output / _TABLE, output / _SUMMARY, found.episodes, summary
    )
  except OSError as error:
    raise paths.cannot_be_written(output, error, "--output") from error
  steps = metadata.get("environment_steps")
  trained = "" if steps is None else f" after {steps:,} environment steps"
  print(
    f"{metadata.get('agent') or 'A policy'}{trained} on"
    f" {printable(task.environment)}, {counted(options.episodes, 'episode')}"
    f" ({'greedy' if options.greedy else 'sampled'}, seed {options.seed})"
  )
  if found.num_cut_off:
    print(
      f"  {found.num_cut_off:,} of {options.episodes:,} episodes were cut off"
      f" after {options.max_episode_steps:,} steps (--max_episode_steps)"
    )
  for line in evaluation.play.describe(statistics):
    print(f"  {line}")
  for name in (_TABLE, _SUMMARY):
    print(f"  {printable(output / name)}")
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = arguments.Parser("programs.evaluate", __doc__)
  parser.add_argument(
    "policy", type=paths.path, metavar="RUN",
    help="a run's work directory, of which the newest checkpoint is used, or a"
    " file: a checkpoint or a policy written by programs.export",
  )
  parser.add_argument(
    "--episodes", type=int, default=100,
    help="number of episodes, 100 by default",
  )
  parser.add_argument(
    "--seed", type=int, default=0,
    help="seed of the samples; environment i of the batch has seed + i",
  )
  parser.add_argument(
    "--greedy", action="store_true",
    help="take the most probable action instead of a sample",
  )
  parser.add_argument(
    "--environments", type=int,
    help="environments to play at a time; must divide the episodes, because"
    f" each plays equally many. Up to {_MAX_ENVIRONMENTS} by default",
  )
  parser.add_argument(
    "--max_episode_steps", type=int, default=evaluation.play.MAX_EPISODE_STEPS,
    help="actions after which an episode is cut off; by default, more than any"
    " suite's own limit",
  )
  parser.add_argument(
    "--environment", help="play in this environment, not the policy's own"
  )
  parser.add_argument(
    "--option", action="append", default=[], metavar="NAME=VALUE",
    help="an option of the environment; may be given several times",
  )
  parser.add_argument(
    "--protocol", choices=["papers", "machado"],
    help="the protocol of Atari, in place of the run's",
  )
  parser.add_argument(
    "--networks", metavar="python:MODULE:FACTORY",
    help="the factory of a policy file's networks, if they were your own",
  )
  parser.add_argument(
    "--output", type=paths.path,
    help="folder for the results, which are replaced; by default"
    " RUN/evaluation, or FILE_evaluation beside a file",
  )
  parser.add_argument(
    "--video", type=paths.path,
    help="write a video of one more episode to this .gif or .mp4 file",
  )
  parser.add_argument(
    "--video_fps", type=float,
    help="frames per second of the video, up to 50 in a GIF and 100 in an MP4;"
    " by default, the video lasts about ten seconds",
  )
  return parser


def _check(options: argparse.Namespace):
  """Checks numbers and the video's file; sets the number of environments.

  Raises:
    ValueError: if any of them is out of range.
  """
  episodes = options.episodes
  check_integer("--episodes", episodes, 1)
  check_integer("--max_episode_steps", options.max_episode_steps, 1)
  most = max(n for n in range(1, _MAX_ENVIRONMENTS + 1) if episodes % n == 0)
  if options.environments is None:
    options.environments = most
  check_integer("--environments", options.environments, 1)
  if episodes % options.environments:
    raise ValueError(
      f"--environments must divide the {episodes} episodes, because each plays"
      f" equally many: {most} does, {options.environments} does not."
    )
  check_integer("--seed", options.seed, 0, 2**31 - options.environments)
  if options.video_fps is not None and not options.video:
    raise ValueError("--video_fps needs a video: give --video=FILE too.")
  if options.video:
    rates = evaluation.video.MAX_RATES
    kind = options.video.suffix
    if kind not in rates:
      raise ValueError(
        f"--video must be a {' or '.join(rates)} file, got {options.video}."
      )
    if options.video_fps is not None:
      check_number(
        f"--video_fps of a {kind} file", options.video_fps, 0.0, rates[kind],
        above=True,
      )


def _load(options: argparse.Namespace, file: pathlib.Path) -> Any:
  """Returns the policy.

  Raises:
    ValueError: if there is no policy, or if the factory of its networks must be
      given or cannot be imported.
  """
  name = options.networks or evaluation.play.networks_of(file)
  if name is None:
    return acme_stac.load_policy(file, options.greedy)
  if not options.networks:
    _check_trust(options, f"networks of {name}", f"--networks={name}")
  factory = acme_stac.environments.import_factory(
    name.removeprefix("python:"), "The factory of networks",
    "environment specs and a STACConfig",
  )
  return acme_stac.load_policy(file, options.greedy, factory)


def _task(options: argparse.Namespace, metadata: dict[str, Any]) -> Any:
  """Returns the `play.Task` that the arguments or the policy's run define.

  Raises:
    ValueError: if they do not define one.
    ImportError: if the environment's package is missing.
  """
  if options.environment == "":
    raise ValueError("--environment is empty: give a name, or leave it out.")
  own = metadata.get("environment")
  name = options.environment or own
  if name is None:
    raise ValueError(
      f"{options.policy} does not say what it was trained on: give"
      " --environment=NAME."
    )
  of_run = (metadata.get("environment_options") or {}) if name == own else {}
  given_names = {text.partition("=")[0] for text in options.option}
  of_file = {key: of_run[key] for key in of_run if key not in given_names}
  imports_code = acme_stac.environments.imports_code
  # A user's own factory interprets the options itself.
  family = name.partition(":")[0]
  if (not options.environment and imports_code(name)) or (
    family != "python" and imports_code(family, of_file)
  ):
    _check_trust(
      options, f"environment {name} with options {of_file}",
      f"--environment={name} and --option NAME=VALUE for each option with a"
      " colon",
    )
  given = _options(name, options.option)
  task = evaluation.play.Task(name, {**of_run, **given}, [])
  if not options.protocol:
    return task
  if family != "atari":
    raise ValueError(
      f"--protocol is for Atari, but the environment is {name}. Leave it out."
    )
  return evaluation.play.with_protocol(
    task, options.protocol, given, metadata["environment_spec"]
  )


def _check_trust(options: argparse.Namespace, code: str, flags: str):
  """Raises ValueError if a single file would choose code to import.

  A work directory is trusted, because the user started its run; a file may come
  from anybody.
  """
  if not options.policy.is_dir():
    raise ValueError(
      f"{options.policy} names code to import: {code}. If you trust it, give"
      f" {flags}."
    )


def _options(environment: str, texts: Sequence[str]) -> dict[str, Any]:
  """Parses options NAME=VALUE; the environment checks the values.

  Raises:
    ValueError: for text of another form, or for an unknown environment.
    ImportError: if the environment's package is missing.
  """
  known = acme_stac.environments.option_types(environment)
  options: dict[str, Any] = {}
  for text in texts:
    name, equals, value = text.partition("=")
    if not (name and equals):
      raise ValueError(f"--option must be NAME=VALUE, got {text!r}.")
    options[name] = arguments.option_value(value, known.get(name))
  return options


def _make_output(options: argparse.Namespace) -> pathlib.Path:
  """Makes and returns the folder of the results.

  Raises:
    UserError: if the results or the video cannot be written.
  """
  path = options.policy
  output = options.output or (
    path / "evaluation"
    if path.is_dir()
    else path.with_name(f"{path.stem}_evaluation")
  )
  paths.make_directory(output, "--output")
  paths.check_files([output / _TABLE, output / _SUMMARY], "--output")
  if options.video:
    paths.make_directory(options.video.absolute().parent, "--video")
    paths.check_files([options.video], "--video")
  return output


def _play(
  options: argparse.Namespace, policy: Any, environment: Any
) -> evaluation.play.Evaluation:
  """Plays the episodes and shows progress."""
  line = progress.Progress(describe=_describe_progress)
  started = time.monotonic()

  def show(episodes: int, actions: int):
    line.show((episodes, options.episodes, actions, time.monotonic() - started))

  try:
    with ending.StopRequest("Stopping; nothing is written.") as stop:
      found = evaluation.play.play(
        environment, policy, options.episodes, options.seed,
        options.max_episode_steps, lambda: bool(stop), show,
      )
  finally:
    line.close()
  if found is None:
    raise KeyboardInterrupt
  return found


def _describe_progress(status: tuple[int, int, int, float]) -> list[str]:
  episodes, number, actions, seconds = status
  parts = [f"{episodes:,}/{number:,} episodes"]
  if 0 < episodes < number:
    left = progress.duration(seconds / episodes * (number - episodes))
    parts.append(f"{left} left")
  parts.append(f"{actions / max(seconds, 1e-9):,.0f} steps/s")
  return parts


def _record(options: argparse.Namespace, task: Any, policy: Any):
  """Writes the video; raises UserError if the environment cannot be drawn."""
  path = options.video
  print(f"{printable(path)}: playing an episode ...", flush=True)
  drawn = {}
  if task.environment.partition(":")[0] == "gymnasium":
    drawn = {"render_mode": "rgb_array"}
  environment = task.make(1, options.seed, **drawn)
  try:
    film = evaluation.video.record(
      environment, policy, options.seed,
      evaluation.video.MAX_FRAMES[path.suffix],
    )
  except Exception as error:  # Each renderer raises errors of its own.
    raise UserError(
      f"{task.environment} cannot be drawn: {error}\nFix that, or leave out"
      " --video."
    ) from error
  finally:
    environment.close()
  fps = options.video_fps or evaluation.video.frame_rate(len(film.frames))
  try:
    evaluation.video.write(path, film.frames, fps)
  except OSError as error:
    raise paths.cannot_be_written(path, error, "--video") from error
  every = "" if film.stride == 1 else f", one every {film.stride} actions"
  print(
    f"{printable(path)}: return {film.episode_return:,.6g} in"
    f" {film.length:,} actions, {len(film.frames)} frames{every},"
    f" {fps:g} per second",
    flush=True,
  )


if __name__ == "__main__":
  ending.leave_no_children()
  commands.run(main)
