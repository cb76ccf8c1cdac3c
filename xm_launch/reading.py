"""Reads the YAML file that describes a run, see `description.Run`."""

import collections.abc
import dataclasses
import pathlib
import types
import typing
from typing import Any

import yaml

from acme_stac.checks import unknown
from programs.run.errors import UserError
from xm_launch.description import Run

_TYPES = {
  str: "text (put it in quotes)",
  int: "a whole number",
  bool: "true or false",
  list: "a list",
  dict: "a mapping",
}


def load(path: str) -> Run:
  """Reads a description.

  Raises:
    UserError: if the file cannot be read, or anything in it is wrong.
  """
  try:
    data = yaml.safe_load(pathlib.Path(path).read_text())
    return _read(Run, data, "")
  except OSError as error:
    raise UserError(
      f"--config: {path} cannot be read ({error.strerror})."
      " xm_launch/pong.yaml is an example."
    ) from error
  # Text that is not UTF-8 is a ValueError.
  except (ValueError, yaml.YAMLError) as error:
    raise UserError(f"{path}: {' '.join(str(error).split())}") from error


def _read(hint: Any, value: Any, where: str) -> Any:
  """Converts a value of YAML to the type of a field.

  Args:
    hint: the type.
    value: the value.
    where: the value's place in the file, for messages.

  Raises:
    ValueError: if it has another type, or its class refuses it.
  """
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is types.UnionType:  # T | None
    return _read(arguments[0], value, where)
  if origin is tuple:
    _check_type(where, value, list)
    return tuple(
      _read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value)
    )
  if origin is collections.abc.Mapping:
    _check_type(where, value, dict)
    for key in value:
      _check_type(f"{where}: name {key!r}", key, str)
    return {
      key: _read(arguments[1], item, f"{where}.{key}")
      for key, item in value.items()
    }
  if dataclasses.is_dataclass(hint):
    return _read_fields(hint, value, where)
  _check_type(where, value, hint)
  return value


def _read_fields(cls: Any, data: Any, where: str) -> Any:
  """Makes a dataclass from a mapping."""
  _check_type(where or "the file", data, dict)
  fields = {field.name: field for field in dataclasses.fields(cls)}
  hints = typing.get_type_hints(cls)
  prefix = f"{where}: " if where else ""
  values = {}
  for name, value in data.items():
    if name not in fields:
      raise ValueError(prefix + unknown("field", name, fields))
    # A name with nothing behind it counts as missing.
    if value is not None:
      place = f"{where}.{name}" if where else name
      values[name] = _read(hints[name], value, place)
  for name, field in fields.items():
    defaults = {field.default, field.default_factory}
    if name not in values and defaults == {dataclasses.MISSING}:
      raise ValueError(f"{prefix}{name} is missing.")
  try:
    return cls(**values)
  except ValueError as error:
    raise ValueError(f"{prefix}{error}") from error


def _check_type(where: str, value: Any, allowed: type):
  # A bool is an int in Python.
  if not isinstance(value, allowed) or (
    isinstance(value, bool) and allowed is int
  ):
    raise ValueError(f"{where} must be {_TYPES[allowed]}, got {value!r}.")
