"""The command-line parser of every command, and values given as text."""

import argparse
import ast
import contextlib
import decimal
import re
import sys
from collections.abc import Sequence
from typing import Any

from acme_stac.checks import near_matches
from programs.run.errors import UserError

# Maximum number of digits of a number in text.
_MAX_DIGITS = 100


class Parser(argparse.ArgumentParser):
  """Parses the arguments of a command.

  Flags must be written out in full; integers may be written as 1e6. Errors are
  raised as `UserError`; the one for an unknown flag names similar flags.
  """

  def __init__(self, module: str, doc: str | None):
    """Makes a parser.

    Args:
      module: name of the command, for example "programs.evaluate".
      doc: the help text, with examples; shown verbatim.
    """
    self._known: list[str] = []
    super().__init__(
      f"python -m {module}", description=doc, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )

  def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
    """Adds an argument, as the base class does."""
    if kwargs.get("type") is int:
      kwargs["type"] = _integer
    action = super().add_argument(*args, **kwargs)
    self._known += action.option_strings
    return action

  # mypy's stubs overload the base method by the type of `namespace`.
  def parse_args(  # type: ignore[override]
    self, args: Sequence[str] | None = None, namespace: Any = None
  ) -> argparse.Namespace:
    """Parses arguments.

    Raises:
      UserError: if any of them is wrong.
    """
    args = list(sys.argv[1:] if args is None else args)
    # Unknown flags first, as one may be why another argument seems missing.
    for argument in args[: args.index("--")] if "--" in args else args:
      flag = argument.partition("=")[0]
      if re.match("-{1,2}[A-Za-z]", flag) and flag not in self._known:
        self.error(f"Unknown flag {flag}.{near_matches(flag, self._known)}")
    return super().parse_args(args, namespace)

  def error(self, message: str):
    """Raises UserError with the message and a pointer to the help."""
    message = message[:1].upper() + message[1:]
    stop = "" if message.endswith((".", "?")) else "."
    raise UserError(
      f"{message}{stop}\n'{self.prog} --help' lists the arguments, with"
      " examples."
    )


def whole_number(text: str) -> int:
  """Returns an integer from "1000000", "1_000_000", "1e6" or "0x10".

  Raises:
    ValueError: if the text is not a whole number.
  """
  with contextlib.suppress(ValueError):
    return int(text, 0)
  # Decimal is exact, whereas floating point rounds large numbers.
  with contextlib.suppress(decimal.InvalidOperation):
    number = decimal.Decimal(text)
    if (
      number.is_finite()
      and number.adjusted() < _MAX_DIGITS
      and number == number.to_integral_value()
    ):
      return int(number)
  raise ValueError(
    f"must be a whole number, such as 1000000, 1_000_000 or 1e6, got {text!r}"
  )


def _integer(text: str) -> int:
  try:
    return whole_number(text)
  except ValueError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def option_value(text: str, option_type: type | None) -> Any:
  """Returns an option's value from text; the environment checks it later.

  Args:
    text: the option as given on a command line.
    option_type: the type that the environment declares, if any. Without one,
      Python literals are evaluated, true and false are bools, and anything else
      is a string.
  """
  if option_type is str:
    return text
  if option_type is int:
    with contextlib.suppress(ValueError):
      return whole_number(text)
  if text in ("true", "false"):
    return text == "true"
  with contextlib.suppress(ValueError, SyntaxError, TypeError):
    return ast.literal_eval(text)
  return text
