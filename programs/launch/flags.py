"""The command line of a run: its flags, and overrides of its configuration.

Flags of the run are parsed as those of every command. `--config.FIELD=VALUE`
overrides a field of the configuration file; ml_collections parses the value by
the field's type.
"""

import argparse
import re
import textwrap
from typing import Any

import ml_collections
from absl import flags as absl_flags
from ml_collections import config_flags

import acme_stac
from acme_stac.checks import unknown
from programs.launch import modes
from programs.run import arguments, user_file
from programs.run.errors import UserError

_CONFIG = "configs/small.py"
_MAX_THREADS = 1024
_MAX_SEEDS = 1000
_OVERRIDE = re.compile(r"--?(no)?config\.")


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line of a run and loads its configuration.

  Args:
    argv: the arguments, without the program's name.

  Returns:
    The flags, where `config` is an ml_collections.ConfigDict.

  Raises:
    UserError: if anything about them is wrong.
  """
  parsed = parse_flags(argv)
  parsed.config = load_config(parsed)
  return parsed


def parse_flags(argv: list[str], doc: str | None = None) -> argparse.Namespace:
  """Parses the flags of a run.

  Loads neither JAX nor NumPy, and starts no threads.

  Args:
    argv: the arguments, without the program's name.
    doc: documentation of the command, for --help.

  Returns:
    The flags, where `config` is the configuration file's path and `overrides`
    the arguments that override fields of it.

  Raises:
    UserError: if anything about them is wrong.
  """
  own, overrides = _split(argv)
  parser = _parser(doc)
  if {"-h", "--help"} & set(own):
    parser.epilog = _names()
  parsed = parser.parse_args(own)
  if not parsed.workdir:
    raise UserError("Say where the run is kept: --workdir=runs/NAME")
  if not 1 <= parsed.threads_per_actor <= _MAX_THREADS:
    raise UserError(f"--threads_per_actor must be from 1 to {_MAX_THREADS}.")
  for name in ("cluster", "host"):
    if getattr(parsed, name) is not None and parsed.launch != "hosts":
      raise UserError(f"--{name} goes with --launch=hosts.")
  _check_members(parsed)
  parsed.overrides = overrides
  return parsed


def _check_members(parsed: argparse.Namespace):
  """Raises UserError if the flags of --launch=on_device do not fit."""
  if not modes.MODES[parsed.launch].is_on_device:
    if parsed.seeds != 1 or parsed.vary:
      raise UserError(
        "--seeds and --vary go with --launch=on_device. Other layouts train one"
        " run at a time; programs.sweep trains many."
      )
  elif parsed.num_actors != 1:
    raise UserError(
      "--launch=on_device has no actors, as environments step inside the"
      " compiled program. Leave --num_actors out;"
      " --config.environments_per_actor sets the number of environments that"
      " step together."
    )
  if not 1 <= parsed.seeds <= _MAX_SEEDS:
    raise UserError(f"--seeds must be from 1 to {_MAX_SEEDS:,}.")


def load_config(parsed: argparse.Namespace) -> ml_collections.ConfigDict:
  """Returns the configuration of a run, with its overrides.

  Args:
    parsed: what `parse_flags` returned.

  Raises:
    UserError: if the file cannot be loaded, or an override is wrong.
  """
  config = user_file.call(parsed.config, "get_config", "--config", "configs")
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"--config: get_config() of {parsed.config} must return an"
      f" ml_collections.ConfigDict, got {type(config).__name__}."
      " programs.run.experiment.base_config makes one."
    )
  try:
    overrides = _set_options(config, parsed.overrides)
    for argument in overrides:
      _check_field(config, argument)
    _override(config, overrides)
  except (absl_flags.Error, ValueError, TypeError, ImportError) as error:
    raise UserError(
      f"{error}\ndocs/training.md has the fields of a run,"
      " docs/environments.md the options of every environment."
    ) from error
  return config


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
  """Splits arguments into those of the run and overrides of its config."""
  own: list[str] = []
  overrides: list[str] = []
  takes_next = False
  for argument in argv:
    if takes_next and not re.match("--?[A-Za-z]", argument):
      overrides[-1] += f"={argument}"
      takes_next = False
    elif _OVERRIDE.match(argument):
      overrides.append(argument)
      takes_next = "=" not in argument
    else:
      own.append(argument)
      takes_next = False
  return own, overrides


def _parser(doc: str | None) -> arguments.Parser:
  parser = arguments.Parser("programs.train", doc)
  parser.add_argument(
    "--config", default=_CONFIG, metavar="FILE.py[:ARGUMENT]",
    help=f"configuration file; {_CONFIG} unless set",
  )
  parser.add_argument("--workdir", help="directory of the run")
  parser.add_argument(
    "--num_actors", type=int, default=1,
    help="actor processes or threads, with --launch=hosts on each host of"
    " actors; 1 unless set",
  )
  parser.add_argument(
    "--threads_per_actor", type=int, default=1,
    help="threads for inference in each actor process and in the evaluator; 1"
    " unless set",
  )
  parser.add_argument(
    "--launch", choices=tuple(modes.MODES), default=modes.DEFAULT,
    help="one thread (repeatable); Launchpad's nodes as threads or processes;"
    " actors and learner as threads that share this host's devices; this host's"
    " share of a run on several hosts; or environments written in JAX, compiled"
    " into one program with the update. Unless set, local_mp where Launchpad"
    " and Reverb are installed, and colocated elsewhere",
  )
  parser.add_argument(
    "--seeds", type=int, default=1,
    help="with --launch=on_device: runs side by side in one program, with"
    " consecutive seeds and directories WORKDIR/0, WORKDIR/1, ...; 1 unless"
    " set",
  )
  parser.add_argument(
    "--vary", action="append", default=[], metavar="FIELD=VALUE,VALUE,...",
    help="with --launch=on_device: runs with each value of a numeric"
    " hyperparameter side by side, in directories WORKDIR/FIELD=VALUE/0, ...;"
    " given several times, with every combination",
  )
  parser.add_argument(
    "--cluster", metavar="FILE",
    help="with --launch=hosts: file that names the hosts; the environment"
    " variable CLUSTER_SPEC unless set",
  )
  parser.add_argument(
    "--host",
    help="with --launch=hosts: which host this is, if its addresses and name"
    " do not tell",
  )
  parser.add_argument(
    "--restart", choices=tuple(modes.RESTARTED), default="workers",
    help="processes that are restarted when they die: none; all that the run"
    " loses nothing by (actors, evaluator, counter, variable server); or also"
    " the learner, from its newest checkpoint, and the queue. workers unless"
    " set",
  )
  parser.add_argument(
    "--noisolate_network", dest="isolate_network", action="store_false",
    help="keep this machine's network. Otherwise the run gets a network of its"
    " own, out of reach from outside, where the kernel allows that",
  )
  return parser


def _names() -> str:
  """Returns the names of agents, environments and configuration files."""
  return "\n".join(
    textwrap.fill(
      f"{title}: {', '.join(names)}", 80, subsequent_indent="  ",
      break_long_words=False, break_on_hyphens=False,
    )
    for title, names in (
      ("Agents (--config.agent)", acme_stac.AGENTS),
      (
        "Environments (configs/small.py:NAME)",
        acme_stac.environments.NAME_FORMS,
      ),
      ("Configuration files (--config)", user_file.known_files("configs")),
    )
  )


def _set_options(
  config: ml_collections.ConfigDict, overrides: list[str]
) -> list[str]:
  """Sets options of the environment that the configuration has no field for.

  Some environments take options that only their factory knows, so that the file
  has no field, and ml_collections no type, for them.

  Returns:
    The other overrides.

  Raises:
    ValueError: if the environment does not take an option.
  """
  prefix = "environment_options"
  rest, options = [], {}
  for argument in overrides:
    path, _, text = argument.partition("=")
    _, *parents, name = path.split(".")
    if parents != [prefix] or name in config.get(prefix, {}):
      rest.append(argument)
    else:
      options[name] = text
  if not options:
    return rest
  types = acme_stac.environments.option_types(config.environment)
  values = {
    name: arguments.option_value(text, types.get(name))
    for name, text in options.items()
  }
  try:
    acme_stac.environments.check_options(config.environment, values)
  except ValueError as error:
    raise ValueError(f"--config.{prefix}: {error}") from error
  with config[prefix].unlocked():
    config[prefix].update(values)
  return rest


def _check_field(config: ml_collections.ConfigDict, argument: str):
  """Raises ValueError for an override of a field that does not exist."""
  node: Any = config
  names = argument.partition("=")[0].split(".")[1:]
  for depth, name in enumerate(names):
    if not isinstance(node, ml_collections.ConfigDict):
      break
    if name not in node:
      where = ".".join(["--config", *names[:depth]])
      raise ValueError(unknown(f"field of {where}", name, node))
    node = node[name]


class _WholeNumbers(absl_flags.IntegerParser):
  """Parses integers, also those written as 1e6."""

  def convert(self, argument: int | str) -> int:
    """Returns an integer, or raises ValueError."""
    if isinstance(argument, str):
      return arguments.whole_number(argument)
    return super().convert(argument)


def _override(config: ml_collections.ConfigDict, overrides: list[str]):
  """Overrides fields of a configuration; raises absl's flags.Error."""
  config_flags.register_flag_parser_for_type(int, _WholeNumbers())
  argv = ["programs.train", *overrides]
  values = absl_flags.FlagValues()
  config_flags.DEFINE_config_dict(
    "config", config, flag_values=values, sys_argv=argv
  )
  values(argv)
