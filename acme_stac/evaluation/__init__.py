"""Scores, statistics and plots of finished or running work directories.

Modules are imported when they are first used, so that the commands parse their
arguments and show --help at once.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from acme_stac.evaluation import play, plots, report, runs, summary, video


def __getattr__(name: str) -> ModuleType:
  full_name = f"{__name__}.{name}"
  if importlib.util.find_spec(full_name) is None:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return importlib.import_module(full_name)
