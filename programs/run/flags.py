"""The flags of a run: each mistake in them is one readable line.

The standard library and absl do for this file until a configuration is loaded.
"""

import pathlib
import re
import runpy
import sys
import textwrap
import traceback
from typing import Any

from programs import commands
from programs.run.errors import UserError

_CONFIG = "configs/small.py"
_OPTION = "config.environment_options."
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


def _whole_numbers(
  lower_bound: int | None = None, upper_bound: int | None = None
) -> Any:
  """Returns absl's parser of integers, which takes 1e6 as well."""
  from absl import flags

  class Parser(flags.IntegerParser):
    def convert(self, argument: int | str) -> int:
      if isinstance(argument, str):
        return commands.whole_number(argument)
      return super().convert(argument)

  return Parser(lower_bound, upper_bound)


def _define_flags(values: Any, argv: list[str]):
  """Defines the flags in `values`, where those of `argv` are to be parsed."""
  from absl import flags
  from ml_collections import config_flags

  config_flags.register_flag_parser_for_type(int, _whole_numbers())
  config_flags.DEFINE_config_file(
    "config",
    _CONFIG,
    "Configuration file, as path:argument.",
    flag_values=values,
    sys_argv=argv,
  )
  flags.DEFINE(
    _whole_numbers(), "num_actors", 1,
    "Actor processes or threads; of each host of actors with --launch=hosts.",
    flag_values=values,
  )
  flags.DEFINE(
    _whole_numbers(1, 1024), "threads_per_actor", 1,
    "Threads for inference in each actor process and in the evaluator.",
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
  argv, options = _take_options(argv)
  try:
    _define_flags(parsed, argv)
    if {"--help", "-h", "--helpfull"} & set(argv[1:]):
      print(sys.modules["__main__"].__doc__)
      print(_names())
      flags_help = parsed.module_help(sys.modules[__name__])
      print("Flags:\n" + flags_help.partition(":\n")[2])
      raise SystemExit(0)
    rest = parsed(argv)
    # A file that cannot be loaded is noticed when it is first asked.
    parsed.config.agent  # noqa: B018
  except flags.Error as error:
    # What a configuration file raised comes with its whole traceback.
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    raised = "ValueError: "
    if last.startswith(raised):
      raise UserError(f"--config: {last[len(raised):]}") from error
    raise UserError(_one_line(str(error))) from error
  except OSError as error:
    files = pathlib.Path("configs").glob("[a-z]*.py")
    known = sorted(str(path) for path in files)
    raise UserError(
      f"--config: {error}\nConfiguration files: {', '.join(known)}"
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    message: object = error
    while isinstance(message, Exception) and message.args:
      message = message.args[0]
    message = _unknown_field(argv) or message
    raise UserError(
      f"--config: {message}\ndocs/training.md has the fields of a run,"
      " docs/environments.md the options of every environment."
    ) from error
  except Exception as error:  # A user's file may raise anything.
    place = traceback.extract_tb(error.__traceback__)[-1]
    raise UserError(
      f"--config: the file or an override of it raised {type(error).__name__}:"
      f" {error} ({place.filename}, line {place.lineno})."
    ) from error
  _set_options(parsed.config, options)
  if len(rest) > 1:
    raise UserError(f"Unknown arguments: {' '.join(rest[1:])}")
  if not parsed.workdir:
    raise UserError("Say where the run is kept: --workdir=runs/NAME")
  for name in ("cluster", "host"):
    if parsed[name].value is not None and parsed.launch != "hosts":
      raise UserError(f"--{name} goes with --launch=hosts.")
  return parsed


def _names() -> str:
  """Returns the names of agents, environments and configuration files."""
  from acme_stac import AGENTS, environments

  files = sorted(map(str, pathlib.Path("configs").glob("[a-z]*.py")))
  return "\n".join(
    textwrap.fill(
      f"{title}: {', '.join(names)}", 80, subsequent_indent="  ",
      break_long_words=False, break_on_hyphens=False,
    )
    for title, names in (
      ("Agents (--config.agent)", AGENTS),
      ("Environments (configs/small.py:NAME)", environments.NAME_FORMS),
      ("Configuration files (--config)", files),
    )
  ) + "\n"


def _take_options(argv: list[str]) -> tuple[list[str], dict[str, str]]:
  """Takes what the configuration file has no field for from a command line.

  Which options an environment takes may be known to nobody but its factory, so
  that the file has no field, and absl no type, for them.

  Returns:
    The other arguments, and options of the environment as texts.
  """
  flags = [a for a in argv if re.match(f"-{{1,2}}{_OPTION}", a)]
  config = _load_config(argv) if flags else None
  known = getattr(config, "environment_options", None)
  if known is None:
    return argv, {}
  rest, options = [], {}
  arguments = iter(argv)
  for argument in arguments:
    flag, equals, text = argument.partition("=")
    name = flag.lstrip("-").removeprefix(_OPTION)
    if argument not in flags or name in known:
      rest.append(argument)
    else:
      options[name] = text if equals else next(arguments, "")
  return rest, options


def _set_options(config: Any, texts: dict[str, str]):
  """Adds options of the environment to a configuration.

  Raises:
    UserError: if the environment does not take them.
  """
  if not texts:
    return
  from acme_stac import environments

  try:
    known = environments.option_types(config.environment)
    options = {
      name: commands.option_value(text, known.get(name))
      for name, text in texts.items()
    }
    environments.check_options(config.environment, options)
  except (ValueError, ImportError) as error:
    raise UserError(f"--{_OPTION}NAME: {error}") from error
  with config.environment_options.unlocked():
    config.environment_options.update(options)


def _load_config(argv: list[str]) -> Any:
  """Returns the configuration of a file as it is; None if it has none."""
  path, _, name = (value(argv, "config") or _CONFIG).partition(":")
  try:
    return runpy.run_path(path)["get_config"](*[name] if name else [])
  except Exception:  # Parsing the flags says why.
    return None


def _one_line(message: str) -> str:
  """Returns an error without the traceback that absl may put in it."""
  lines = message.strip().splitlines()
  if "Traceback (most recent call last):" in lines:
    return lines[-1]
  return "\n".join(lines)


def value(argv: list[str], name: str) -> str | None:
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
  path = pathlib.Path((value(argv, "config") or _CONFIG).partition(":")[0])
  try:
    special = path.exists() and not path.is_file() and not path.is_dir()
  except (OSError, ValueError):
    return  # Loading it says why.
  if special:
    raise UserError(f"--config: {path} is not a regular file.")


def _unknown_field(argv: list[str]) -> str | None:
  """Returns what to say of a --config.FIELD that the file does not have."""
  from acme_stac.checks import unknown

  path, _, name = (value(argv, "config") or _CONFIG).partition(":")
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
