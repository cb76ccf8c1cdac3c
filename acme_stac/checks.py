"""Checks of ranges and names, with messages for users.

Imports only the standard library, so that every module can use it.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

# Upper limit of sizes and counts: catches typos before they exhaust memory.
MAX_SIZE = 2**20
# The largest number in single precision, in which everything is computed.
_MAX_FLOAT = 3.4028234e38


class FieldError(ValueError):
  """Reports a field that is out of its range, or fields that conflict.

  Attributes:
    fields: names of the fields.
  """

  def __init__(self, message: str, *fields: str):
    super().__init__(message)
    self.fields = fields


def check_integer(
  name: str,
  value: Any,
  minimum: int,
  maximum: float = float("inf"),
  field: str | None = None,
):
  """Checks that a value is a whole number within limits.

  Args:
    name: how the message refers to the value.
    value: value to check; a bool is not a whole number.
    minimum: smallest value allowed.
    maximum: largest value allowed.
    field: field that the error names, if it is not `name`.

  Raises:
    FieldError: if the check fails.
  """
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not whole or not minimum <= value <= maximum:
    limit = "" if maximum == float("inf") else f" and at most {maximum}"
    raise FieldError(
      f"{name} must be a whole number of at least {minimum}{limit}, got"
      f" {value!r}.",
      field or name,
    )


def check_number(
  name: str,
  value: Any,
  minimum: float = float("-inf"),
  maximum: float = float("inf"),
  *,
  above: bool = False,
  below: bool = False,
  field: str | None = None,
):
  """Checks that a value is a number within limits, finite in single precision.

  Args:
    name: how the message refers to the value.
    value: value to check; a bool is not a number.
    minimum: smallest value allowed.
    maximum: largest value allowed.
    above: exclude `minimum` itself.
    below: exclude `maximum` itself.
    field: field that the error names, if it is not `name`.

  Raises:
    FieldError: if the check fails.
  """
  ok = isinstance(value, (int, float)) and not isinstance(value, bool)
  ok = ok and abs(value) <= _MAX_FLOAT and minimum <= value <= maximum
  ok = ok and not (above and value == minimum)
  ok = ok and not (below and value == maximum)
  if not ok:
    allowed = NumberRange(minimum, maximum, above, below)
    raise FieldError(
      f"{name} must be a finite number in {allowed}, got {value!r}.",
      field or name,
    )


@dataclasses.dataclass(frozen=True)
class IntegerRange:
  """The whole numbers that a field allows, limits included."""

  minimum: int
  maximum: int = MAX_SIZE

  def __str__(self) -> str:
    return f"{self.minimum:,} to {self.maximum:,}"

  def check(self, name: str, value: Any, field: str | None = None):
    """Checks a value, see `check_integer`."""
    check_integer(name, value, self.minimum, self.maximum, field)


@dataclasses.dataclass(frozen=True)
class NumberRange:
  """The numbers that a field allows, see `check_number`."""

  minimum: float = float("-inf")
  maximum: float = float("inf")
  above: bool = False
  below: bool = False

  def __str__(self) -> str:
    lower = "(" if self.above or self.minimum == float("-inf") else "["
    upper = ")" if self.below or self.maximum == float("inf") else "]"
    return f"{lower}{self.minimum}, {self.maximum}{upper}"

  def check(self, name: str, value: Any, field: str | None = None):
    """Checks a value, see `check_number`."""
    check_number(
      name, value, self.minimum, self.maximum, above=self.above,
      below=self.below, field=field,
    )


class Choice:
  """The names that a field allows, each with its meaning."""

  def __init__(self, **meanings: str):
    self.meanings = meanings

  def check(self, name: str, value: Any, field: str | None = None):
    """Raises FieldError unless the value is one of the names."""
    if not isinstance(value, str) or value not in self.meanings:
      raise FieldError(unknown(name, value, self.meanings), field or name)


def near_matches(name: Any, known: Iterable[str]) -> str:
  """Returns " Did you mean 'x' or 'y'?" for names close to one, or ""."""
  near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
  return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
  """Returns the message for a name that is not one of the known names."""
  known = sorted(known)
  near = near_matches(name, known)
  listed = ", ".join(known) if len(known) <= 80 else f"{len(known)} names"
  return f"Unknown {kind}: {name!r}.{near} Known: {listed}."


def plain_type(hint: Any) -> Any:
  """Returns the class behind a type hint, such as int for `int | None`."""
  if typing.get_origin(hint) in (types.UnionType, typing.Union):
    hint = next(t for t in typing.get_args(hint) if t is not type(None))
  return typing.get_origin(hint) or hint
