"""What the commands share: arguments, numbers, exit codes."""

import argparse
import ast
import contextlib
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from acme_stac.checks import near_matches
from programs.launch import ending
from programs.run.errors import UserError, report_error


class Parser(argparse.ArgumentParser):
  """Parses the arguments of a command.

  Flags are written out in full. Errors are `UserError`s, and one for an unknown
  flag names those that are near to it.
  """

  def __init__(self, module: str, doc: str | None):
    """Makes a parser.

    Args:
      module: name of the command, for example "programs.evaluate".
      doc: its documentation, with examples; shown as it is.
    """
    self._known: list[str] = []
    super().__init__(
      f"python -m {module}", description=doc, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )

  def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
    """Adds an argument, as the base class does; an int may be 1e6."""
    if kwargs.get("type") is int:
      kwargs["type"] = _integer
    action = super().add_argument(*args, **kwargs)
    self._known += action.option_strings
    return action

  # The base class lets subcommands take what is unknown to the command.
  def parse_args(self, args=None, namespace=None):  # type: ignore[override]
    """Parses arguments.

    Raises:
      UserError: if anything about them is wrong.
    """
    args = list(sys.argv[1:] if args is None else args)
    # An unknown flag first: it is why another argument seems to be missing.
    before_dashes = args[: args.index("--")] if "--" in args else args
    for argument in before_dashes:
      flag = argument.partition("=")[0]
      if re.match("-{1,2}[A-Za-z]", flag) and flag not in self._known:
        self.error(f"Unknown flag {flag}.{near_matches(flag, self._known)}")
    return super().parse_args(args, namespace)

  def error(self, message: str):  # type: ignore[override]
    """Raises UserError with the message and where to read on."""
    message = message[:1].upper() + message[1:]
    stop = "" if message.endswith((".", "?")) else "."
    raise UserError(
      f"{message}{stop}\n'{self.prog} --help' has the arguments, with examples."
    )


def run(main: Callable[[list[str]], int], argv: list[str]):
  """Runs a command to its end and exits.

  The exit code is that of `main`; 2 for what a user can mend, which is printed;
  130 if it was interrupted.

  Args:
    main: takes `argv` and returns an exit code.
    argv: arguments of the command.
  """
  try:
    sys.exit(main(argv))
  except KeyboardInterrupt:
    ending.say("\nStopped.")
    sys.exit(128 + signal.SIGINT)
  except UserError as error:
    sys.exit(report_error(error))


def whole_number(text: str) -> int:
  """Returns an integer from "1000000", "1_000_000", "1e6" or "0x10".

  Raises:
    ValueError: if the text is no number, or not a whole one.
  """
  try:
    return int(text, 0)
  except ValueError:
    pass
  try:
    return int(text)
  except ValueError:
    pass
  # Of a decimal number; floating point would round large ones.
  match = re.fullmatch(
    r"\s*([+-]?)(\d+(?:_\d+)*)\.?(\d*)(?:[eE]\+?(\d{1,2}))?\s*", text
  )
  if match:
    sign, whole, decimals, exponent = match.groups()
    digits = decimals.ljust(int(exponent or 0), "0")
    shift = int(exponent or 0)
    if not digits[shift:].strip("0"):
      return int(f"{sign}{whole}{digits[:shift]}")
  raise ValueError(
    f"must be a whole number, such as 1000000, 1_000_000 or 1e6, got {text!r}"
  )


def _integer(text: str) -> int:
  try:
    return whole_number(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def option_value(text: str, option_type: type | None) -> Any:
  """Returns an option of an environment from its text.

  Args:
    text: as it is given on a command line.
    option_type: the type that the environment says, if it does. Otherwise a
      text that is a value of Python is that value, true and false are bools,
      and the rest is a text.

  Whether it fits, the environment checks.
  """
  if option_type is str:
    return text
  if option_type is int:
    with contextlib.suppress(ValueError):
      return whole_number(text)
  if text in ("true", "false"):
    return text == "true"
  with contextlib.suppress(Exception):
    return ast.literal_eval(text)
  return text
