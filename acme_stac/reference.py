"""Writes docs/reference.md from the fields of `STACConfig`.

Usage:
  python -m acme_stac.reference > docs/reference.md
"""

import dataclasses
import typing
from typing import Any

from acme_stac.checks import Choice
from acme_stac.config import STACConfig
from acme_stac.presets import DOMAINS

_COLUMNS = ("atari", "control_features", "control_pixels", "small")
_HEAD = """# Every field of an agent

Made by `python -m acme_stac.reference` from `acme_stac/config.py`: edit that.

Set a field with `--config.stac.FIELD=VALUE` on the command line, or
`acme_stac.make_config(agent, domain, FIELD=VALUE)`. Defaults are those of the
agent `stacx` on Atari; [other domains](#values-by-domain) and
[other agents](agents.md) change some. Tables, sections and algorithms are those
of Zahavy et al. (2020). For the fields of a run (environment, budget,
checkpoints) see [training](training.md#fields).

|field|default|allowed|meaning|source|
|---|---|---|---|---|
"""
_DOMAINS = """
## Values by domain

The other small domains are in [environments](environments.md#small-settings).

"""


def reference() -> str:
  """Returns the page as Markdown."""
  fields = dataclasses.fields(STACConfig)
  domains = {name: STACConfig(**DOMAINS[name]) for name in _COLUMNS}
  lines = [_HEAD.rstrip("\n")]
  for field in fields:
    data = field.metadata
    lines.append(_row(
      f"`{field.name}`", _value(field.default), _allowed(field),
      _meaning(field), data["source"],
    ))
  lines += [_DOMAINS.rstrip("\n"), "", _row("field", *_COLUMNS)]
  lines.append("|---" * (len(_COLUMNS) + 1) + "|")
  for field in fields:
    values = [getattr(config, field.name) for config in domains.values()]
    if len(set(values)) > 1:
      lines.append(_row(f"`{field.name}`", *map(_value, values)))
  return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
  return f"|{'|'.join(cells)}|"


def _value(value: Any) -> str:
  if isinstance(value, tuple):
    return f"({', '.join(map(str, value))})"
  is_large = isinstance(value, int) and value >= 10_000
  return f"{value:,}" if is_large else str(value)


def _allowed(field: dataclasses.Field) -> str:
  allowed = field.metadata["allowed"]
  if allowed is None:
    return "True, False"
  is_choice = isinstance(allowed, Choice)
  if typing.get_origin(field.type) is tuple:
    return "names" if is_choice else f"each {allowed}"
  or_none = ", None" if type(None) in typing.get_args(field.type) else ""
  return "a name" if is_choice else f"{allowed}{or_none}"


def _meaning(field: dataclasses.Field) -> str:
  """Returns the meaning of a field and of each name that it allows."""
  allowed, meaning = field.metadata["allowed"], field.metadata["meaning"]
  if not isinstance(allowed, Choice):
    return meaning
  names = [
    f"`{name}`: {text}" for name, text in allowed.meanings.items() if text
  ]
  return f"{meaning} {'; '.join(names)}." if names else meaning


if __name__ == "__main__":
  print(reference(), end="")
