"""Formats names, numbers and lists for people."""

from collections.abc import Iterable, Sequence
from typing import Any

# Items that a brief list names.
_BRIEFLY = 3


def printable(text: Any) -> str:
  """Returns text that is safe to print on a terminal or a page.

  Replaces control characters, line ends, bidirectional and invisible marks, and
  bytes of a file name that are not valid text by backslash escapes.
  """
  return "".join(
    one if one.isprintable() else _escaped(one) for one in str(text)
  )


def _escaped(character: str) -> str:
  # Python keeps an undecodable byte of a file name as a lone surrogate.
  if "\udc80" <= character <= "\udcff":
    return f"\\x{ord(character) - 0xDC00:02x}"
  return character.encode("unicode_escape").decode()


def shortened(text: str, length: int) -> str:
  """Returns text of at most `length` characters; "…" replaces the middle."""
  if len(text) <= length:
    return text
  half = (length - 1) // 2
  return f"{text[: length - 1 - half]}…{text[len(text) - half :]}"


def counted(number: int, noun: str) -> str:
  """Returns for example "1 run" or "1,000 runs"."""
  return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(items: Iterable[Any]) -> str:
  """Returns for example "a, b, c"."""
  return ", ".join(map(str, items))


def listed_briefly(items: Iterable[Any]) -> str:
  """Returns for example "0, 1, 2 and 5 more"."""
  items = list(items)
  more = len(items) - _BRIEFLY
  return listed(items[:_BRIEFLY]) + (f" and {more:,} more" if more > 0 else "")


def named_seeds(numbers: Iterable[int]) -> str:
  """Returns for example "seed 3" or "seeds 0–2, 5"."""
  found = sorted(set(numbers))
  ranges: list[list[int]] = []
  for number in found:
    if ranges and number == ranges[-1][-1] + 1:
      ranges[-1].append(number)
    else:
      ranges.append([number])
  said = listed(
    f"{of[0]}–{of[-1]}" if len(of) > 2 else listed(of) for of in ranges
  )
  return f"seed{'' if len(found) == 1 else 's'} {said}"


def range_of(numbers: Sequence[int], noun: str) -> str:
  """Returns for example "5 seeds", or "3–5 seeds" where they differ."""
  low, high = min(numbers), max(numbers)
  return counted(low, noun) if low == high else f"{low}–{high} {noun}s"
