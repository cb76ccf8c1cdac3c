"""Evaluates work directories: logs, statistics, figures and reports.

`logs` reads the CSV logs of a run, `summary` makes a row of figures from them,
`runs` finds many runs and `groups` compares their settings. `statistics`
estimates, `figures/` draws, `report/` writes the page. `scores` and `published`
hold what papers report. Nothing here starts or changes a run.

Modules are imported when they are first used, so that the commands parse their
arguments and show --help at once.
"""

import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from acme_stac.evaluation import (
    figures,
    play,
    report,
    runs,
    statistics,
    summary,
    video,
  )


def __getattr__(name: str) -> ModuleType:
  full_name = f"{__name__}.{name}"
  if importlib.util.find_spec(full_name) is None:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return importlib.import_module(full_name)
