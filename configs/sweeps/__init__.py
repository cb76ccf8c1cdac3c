"""Lists of runs for programs.sweep."""

from collections.abc import Mapping
from typing import TypeVar

_Part = TypeVar("_Part")


def choose(parts: Mapping[str, _Part], name: str) -> _Part:
  """Returns the part of a sweep of that name.

  Raises:
    ValueError: if there is none.
  """
  if name not in parts:
    raise ValueError(f"There is no part {name!r}. Parts: {', '.join(parts)}.")
  return parts[name]
