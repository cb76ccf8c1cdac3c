"""Trains an agent.

  python -m programs.train --config=configs/small.py:gymnasium:CartPole-v1 \
    --config.agent=stacx --num_actors=1 --workdir=runs/cartpole

The same --workdir resumes a run that was stopped. See docs/training.md.
"""

import io
import os
import pathlib
import runpy
import signal
import sys
import traceback
import typing
from typing import Any

from programs import machine

_CONFIG = "configs/small.py"
_MAX_ACTORS = 1000
# Those of Launchpad's run_locally.
_TERMINALS = (
  "byobu_session",
  "current_terminal",
  "gnome-terminal",
  "gnome-terminal-tabs",
  "output_to_files",
  "tmux_session",
  "xterm",
)


class Run(typing.NamedTuple):
  """A run that can be started.

  Attributes:
    experiment: its description.
    step: updates that are already done.
    changes: what has changed since.
    cluster: its hosts, if it has several.
  """

  experiment: Any
  step: int
  changes: list[str]
  cluster: Any


def _define_flags(values: Any, argv: list[str]):
  """Defines the flags in `values`, where those of `argv` are to be parsed."""
  from absl import flags
  from ml_collections import config_flags

  config_flags.DEFINE_config_file(
    "config",
    _CONFIG,
    "Configuration file, as path:argument.",
    flag_values=values,
    sys_argv=argv,
  )
  flags.DEFINE_integer(
    "num_actors", 1,
    "Actor processes or threads; of each host of actors with --launch=hosts.",
    flag_values=values,
  )
  flags.DEFINE_integer(
    "threads_per_actor",
    1,
    "Threads for inference in each actor process and in the evaluator.",
    lower_bound=1,
    upper_bound=1024,
    flag_values=values,
  )
  flags.DEFINE_string(
    "workdir", None, "Directory of the run.", flag_values=values
  )
  flags.DEFINE_enum(
    "launch",
    "local_mp",
    ["serial", "local_mt", "local_mp", "colocated", "hosts"],
    "One thread (repeatable); Launchpad's nodes as threads or processes; actors"
    " and learner as threads that share the devices of this host; or this"
    " host's share of a run on several hosts.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "cluster", None,
    "With --launch=hosts: file that says which hosts there are. CLUSTER_SPEC in"
    " the environment if it is left out.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "host", None,
    "With --launch=hosts: which of them this is, where its addresses and name"
    " do not tell.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    "restart", "workers", ["none", "workers", "all"],
    "Which processes are started again when they die: none; all that the run"
    " loses nothing by (actors, evaluator, counter, variable server); or the"
    " learner, from its newest checkpoint, and the queue too.",
    flag_values=values,
  )
  flags.DEFINE_boolean(
    "isolate_network", True,
    "Run in a network of its own, out of reach from outside, where the kernel"
    " allows that. Off if environments need a network.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    "terminal",
    None,
    _TERMINALS,
    "Show every node in a terminal of Launchpad's own, such as tmux_session.",
    flag_values=values,
  )


def parse(argv: list[str], values: Any = None) -> Any:
  """Parses a command line.

  Args:
    argv: with the program's name.
    values: absl's FlagValues that get the flags; absl's own ones if None.

  Returns:
    `values`.

  Raises:
    UserError: if anything is wrong, with one readable line.
  """
  from absl import flags

  parsed = flags.FLAGS if values is None else values
  _check_config_file(argv)
  try:
    _define_flags(parsed, argv)
    if {"--help", "-h", "--helpfull"} & set(argv[1:]):
      print(__doc__)
      print(parsed.module_help(sys.modules["__main__"]) or "")
      print(parsed.main_module_help())
      raise SystemExit(0)
    rest = parsed(argv)
    # A file that cannot be loaded is noticed when it is first asked.
    parsed.config.agent  # noqa: B018
  except flags.Error as error:
    # What a configuration file raised comes with its whole traceback.
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    raised = "ValueError: "
    if last.startswith(raised):
      raise machine.UserError(f"--config: {last[len(raised):]}") from error
    raise machine.UserError(_one_line(str(error))) from error
  except OSError as error:
    files = pathlib.Path("configs").glob("[a-z]*.py")
    known = sorted(str(path) for path in files)
    raise machine.UserError(
      f"--config: {error}\nConfiguration files: {', '.join(known)}"
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    message: object = error
    while isinstance(message, Exception) and message.args:
      message = message.args[0]
    message = _unknown_field(argv) or message
    raise machine.UserError(
      f"--config: {message}\ndocs/training.md has the fields of a run,"
      " docs/environments.md the options of every environment."
    ) from error
  except Exception as error:  # A user's file may raise anything.
    place = traceback.extract_tb(error.__traceback__)[-1]
    raise machine.UserError(
      f"--config: the file or an override of it raised {type(error).__name__}:"
      f" {error} ({place.filename}, line {place.lineno})."
    ) from error
  if len(rest) > 1:
    raise machine.UserError(f"Unknown arguments: {' '.join(rest[1:])}")
  if not parsed.workdir:
    raise machine.UserError("Say where the run is kept: --workdir=runs/NAME")
  for name in ("cluster", "host"):
    if parsed[name].value is not None and parsed.launch != "hosts":
      raise machine.UserError(f"--{name} goes with --launch=hosts.")
  return parsed


def _one_line(message: str) -> str:
  """Returns an error without the traceback that absl may put in it."""
  lines = message.strip().splitlines()
  if "Traceback (most recent call last):" in lines:
    return lines[-1]
  return "\n".join(lines)


def _value(argv: list[str], name: str) -> str | None:
  """Returns the last value of a flag before absl parses it."""
  value = None
  for number, argument in enumerate(argv):
    flag, equals, text = argument.partition("=")
    if flag in (f"--{name}", f"-{name}"):
      following = argv[number + 1 : number + 2]
      value = text if equals else (following[0] if following else None)
  return value


def _check_config_file(argv: list[str]):
  """Raises UserError for what would be read for ever."""
  path = pathlib.Path((_value(argv, "config") or _CONFIG).partition(":")[0])
  try:
    special = path.exists() and not path.is_file() and not path.is_dir()
  except (OSError, ValueError):
    return  # Loading it says why.
  if special:
    raise machine.UserError(f"--config: {path} is not a regular file.")


def _unknown_field(argv: list[str]) -> str | None:
  """Returns what to say of a --config.FIELD that the file does not have."""
  from acme_stac.config import unknown

  path, _, name = (_value(argv, "config") or _CONFIG).partition(":")
  try:
    config = runpy.run_path(path)["get_config"](*[name] if name else [])
  except ValueError as error:
    return str(error)
  except Exception:  # What was raised first says more.
    return None
  for argument in argv:
    if not argument.startswith(("--config.", "-config.")):
      continue
    node = config
    fields = argument.partition("=")[0].split(".")[1:]
    for number, name in enumerate(fields):
      if not hasattr(node, "keys"):
        break
      if name not in node:
        where = ".".join(["--config", *fields[:number]])
        return unknown(f"field of {where}", name, node)
      node = node[name]
  return None


def _isolate(argv: list[str]):
  """Leaves the network where the run needs none; before threads are started."""
  if _value(argv, "launch") == "hosts":
    return
  isolated = (_value(argv, "isolate_network") or "").lower()
  off = {"--noisolate_network", "-noisolate_network"} & set(argv)
  if off or isolated in ("false", "f", "0"):
    return
  if not machine.isolate_network():
    print(
      "The kernel does not let this run have a network of its own, so its"
      " ports can be reached from outside: docs/operations.md, 'Who may come"
      " in'.",
      file=sys.stderr,
    )


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  # Names of files may be of bytes that are no text.
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")
  _isolate(argv)
  machine.use_compilation_cache()
  machine.check()
  # Of all processes the learner alone may see the accelerator, and this one
  # only describes the run, unless the learner is a thread of it.
  learner_environment = {
    name: os.environ[name]
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")
    if name in os.environ
  }
  parsed = parse(argv)
  if parsed.launch in ("local_mp", "hosts"):
    os.environ["JAX_PLATFORMS"] = "cpu"
  return _run(describe(parsed), parsed, learner_environment)


def describe(parsed: Any) -> Run:
  """Describes the run of parsed flags and prepares its work directory.

  Nothing is started. All that a user can get wrong is found by now.

  Raises:
    UserError: if there is such a thing.
  """
  from programs import cluster as cluster_lib
  from programs import experiment as experiment_lib

  cluster: cluster_lib.Cluster | None = None
  num_actors = parsed.num_actors
  if parsed.launch == "hosts":
    cluster = cluster_lib.read(parsed.cluster, parsed.host, num_actors)
    num_actors = cluster.num_actors
  elif num_actors > _MAX_ACTORS:
    raise machine.UserError(
      f"num_actors must be at most {_MAX_ACTORS} on one host, got {num_actors}."
      " --launch=hosts takes more hosts: docs/operations.md."
    )
  experiment = experiment_lib.make_experiment(
    parsed.config, num_actors, parsed.workdir
  )
  step = 0
  changes: list[str] = []
  if cluster is None or cluster.is_learner_host:
    step, changes = experiment_lib.prepare_workdir(experiment)
  else:
    experiment_lib.make_workdir(experiment)
  return Run(experiment, step, changes, cluster)


def _run(run: Run, parsed, learner_environment) -> int:
  from programs import ending, launching
  from programs.calls import SilentError
  from programs.nodes import HopelessError
  from programs.progress import Progress

  experiment, step, changes, cluster = run
  config = experiment.config
  learns_here = cluster is None or cluster.is_learner_host
  print(
    f"{experiment.agent} on {experiment.environment}:"
    f" {config.num_environment_steps:,} environment steps,"
    f" {config.num_updates:,} updates,"
    f" {experiment.num_actors} × {experiment.environments_per_actor}"
    f" environments, in {experiment.workdir}"
  )
  if cluster is not None:
    print(f"This is {cluster.describe()}.")
  if step:
    print(f"Resuming after {step:,} updates.")
    for change in changes:
      print(f"  changed: {change}")
  if step >= config.num_updates:
    print("This run is done. A larger --config.num_environment_steps goes on.")
    return 0
  progress = Progress()
  try:
    if parsed.launch == "serial":
      launching.run_serial(experiment, progress)
    elif parsed.launch == "local_mt":
      launching.run_threads(experiment, progress)
    elif parsed.launch == "colocated":
      launching.run_colocated(experiment, progress)
    else:
      from programs import processes

      processes.run_processes(
        experiment,
        progress,
        learner_environment,
        parsed.threads_per_actor,
        parsed.restart,
        cluster,
        parsed.terminal,
      )
    progress.close()
    kept = "Logs, checkpoints and plots" if learns_here else "Logs of actors"
    print(f"Done. {kept} are in {experiment.workdir}")
    code = 0
  except ending.Interrupted as interrupted:
    progress.close()
    saved = "; the checkpoint is saved" if learns_here else ""
    print(f"Stopped{saved}. The same command goes on.")
    # An engine that tells a host to go and takes 0 for done would not start it
    # again.
    told_to_go = cluster is not None and signal.SIGTERM in interrupted.args
    code = 128 + signal.SIGTERM if told_to_go else 0
  except (ending.NodeDiedError, SilentError, HopelessError) as error:
    progress.close()
    print(f"{error}\nThe same command resumes.", file=sys.stderr)
    code = 1
  if learns_here:
    _plot(experiment)
  return code


def _plot(experiment):
  from acme_stac.evaluation import plots, summary

  result = summary.summarise_run(experiment.workdir)
  if skipped := result.get("skipped_updates", 0):
    print(
      f"Warning: {skipped:,} updates had numbers that are not finite and were"
      " skipped. Look at the losses and norms in logs/learner.csv."
    )
  if dropped := result.get("dropped_trajectories", 0):
    print(
      f"Warning: {dropped:,} trajectories had numbers that are not finite and"
      " were dropped. logs/nodes/learner.log says what in them."
    )
  for path in plots.plot_run(experiment.workdir):
    print(f"  {path}")


def check(argv: list[str]):
  """Checks the arguments of a run as the command does, and starts nothing.

  Raises:
    UserError: if anything about them cannot work.
  """
  machine.check()
  parsed = _parse(argv)
  from programs import experiment as experiment_lib

  experiment_lib.make_experiment(
    parsed.config, parsed.num_actors, parsed.workdir
  )


if __name__ == "__main__":
  try:
    sys.exit(main(sys.argv))
  except machine.UserError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
