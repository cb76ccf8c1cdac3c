"""Reports on runs: one page, its figures as files, and the data of both.

`comparison` decides which runs count, `warnings` what limits the comparison,
`sections` and `analyses` write the parts of a `page`. Figures are drawn and
estimates made elsewhere.
"""

import pathlib
from collections.abc import Callable, Sequence

from acme_stac.evaluation import runs
from acme_stac.evaluation.figures.groups import short
from acme_stac.evaluation.report import analyses, sections
from acme_stac.evaluation.report.comparison import Comparison
from acme_stac.evaluation.report.page import Page
from acme_stac.evaluation.text import counted


def write(
  found: runs.Found,
  output: pathlib.Path,
  baseline: str | None = None,
  title: str = "",
  report_progress: Callable[[str], None] = lambda text: None,
) -> list[pathlib.Path]:
  """Writes index.html, PNG files and data/; returns the files.

  Args:
    found: the runs, and problems that the page mentions.
    output: directory to write to.
    baseline: agent that others are compared with; None takes impala or, if no
      run is of that, the first agent.
    title: of the page; empty for one of the agents and tasks.
    report_progress: called with the title of each section as it begins.

  Raises:
    ValueError: if no run with usual settings is of the baseline.
    OSError: if a file cannot be written.
  """
  comparison = Comparison(found.runs, baseline)
  output.mkdir(parents=True, exist_ok=True)
  page = Page(output, report_progress)
  sections.answer(page, comparison, found.problems)
  sections.learning_curves(page, comparison)
  sections.returns(page, comparison)
  analyses.write(page, comparison)
  sections.run_time(page, comparison)
  sections.published_numbers(page, comparison)
  sections.inventory(page, comparison)
  index = page.write(title.strip() or _title(comparison))
  data = runs.export(found.runs, output / "data")
  return [index, *page.written, *data]


def _title(comparison: Comparison) -> str:
  """Returns for example "impala and stac on catch"."""
  tasks = [short(task) for task in comparison.tasks]
  return " on ".join(
    " and ".join(names) if len(names) < 3 else counted(len(names), noun)
    for names, noun in ((comparison.agents, "agent"), (tasks, "task"))
  )
