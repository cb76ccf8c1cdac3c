"""One HTML page that needs no other file: sections, tables and figures."""

import base64
import contextlib
import html
import importlib.resources
import io
import pathlib
import re
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from acme_stac.evaluation.figures import styles
from acme_stac.evaluation.statistics import Estimate
from acme_stac.evaluation.text import printable

# Resolution of a picture, in dots per inch.
_DPI = 130


def slug(text: str) -> str:
  """Returns text as part of a file name."""
  return re.sub(r"[^A-Za-z0-9=_-]+", "_", text)[:80].strip("_")


def _safe(text: Any) -> str:
  return html.escape(printable(text))


def _cell(value: Any) -> str:
  """Returns a cell's content, which breaks between a value and its interval."""
  if isinstance(value, Estimate):
    value, _, interval = str(value).partition(" ")
    shown = f'<span class="part">{_safe(value)}</span>'
    if interval:
      shown += f' <span class="part interval">{_safe(interval)}</span>'
    return shown
  if isinstance(value, tuple):
    estimate, note = value
    return f'{_cell(estimate)} <span class="interval">({_safe(note)})</span>'
  return _safe(value)


class Page:
  """Collects the parts of a page and writes it.

  Attributes:
    written: files of figures beside the page.
  """

  def __init__(
    self, output: pathlib.Path, report_progress: Callable[[str], None]
  ):
    """Begins an empty page.

    Args:
      output: directory to write to.
      report_progress: called with the title of each section as it begins.
    """
    self._output = output
    self._report_progress = report_progress
    self._parts: list[str] = []
    self._sections: list[str] = []
    self.written: list[pathlib.Path] = []

  def section(self, title: str):
    """Begins a section."""
    self._report_progress(title)
    self._parts.append(f'<h2 id="{len(self._sections)}">{_safe(title)}</h2>')
    self._sections.append(title)

  def heading(self, title: str):
    """Begins a part of a section."""
    self._parts.append(f"<h3>{_safe(title)}</h3>")

  def text(self, text: str, kind: str = "note"):
    """Adds a paragraph: a "note" or a "warning"."""
    self._parts.append(f'<p class="{kind}">{_safe(text)}</p>')

  @contextlib.contextmanager
  def fold(self, summary: str) -> Iterator[None]:
    """Folds what is added inside the context below a line of text."""
    self._parts.append(f"<details><summary>{_safe(summary)}</summary>")
    yield
    self._parts.append("</details>")

  def table(
    self, head: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = ""
  ):
    """Adds a table, which scrolls by itself if it is too wide.

    Leaves out columns that are empty in all rows.

    Args:
      head: one cell per column.
      rows: one cell per column each. A cell may be an `Estimate`, which is
        written with its interval, or a pair of an estimate and a note.
      kind: "text" for columns of text, "answer" for the first table.
    """
    def line(cells: Sequence[Any], tag: str) -> str:
      inside = "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells)
      return f"<tr>{inside}</tr>"

    rows = list(rows)
    empty = [
      bool(rows) and all(row[i] == "" for row in rows)
      for i in range(len(head))
    ]
    head, *rows = (
      [cell for cell, left_out in zip(row, empty, strict=True) if not left_out]
      for row in (head, *rows)
    )
    body = "".join(line(row, "td") for row in rows)
    self._parts.append(
      f'<div class="table"><table class="{kind}"><thead>{line(head, "th")}'
      f"</thead><tbody>{body}</tbody></table></div>"
    )

  def tables(
    self, head: Sequence[Any], rows: Sequence[Any], folded: Sequence[Any],
    summary: str,
  ):
    """Adds a table, and one of further rows folded below a line of text."""
    if rows:
      self.table(head, rows)
    if folded:
      with self.fold(summary):
        self.table(head, folded)

  def figure(self, figure: Figure | None, name: str, caption: str):
    """Adds a figure for wide and narrow windows, and writes the wide one.

    Args:
      figure: made by `styles.panels`; None adds nothing.
      name: name of the file, which gets a number if the name is taken.
      caption: text below the figure, also its text alternative.
    """
    if figure is None:
      return
    path = self._output / f"{slug(name)}.png"
    number = 1
    while path in self.written:
      number += 1
      path = self._output / f"{slug(name)}_{number}.png"
    wide = _png(figure)
    path.write_bytes(wide)
    self.written.append(path)
    styles.narrow(figure)
    self._parts.append(
      '<figure><picture><source media="(max-width: 40rem)"'
      f' srcset="{_inline(_png(figure))}">'
      f'<img alt="{_safe(caption)}" src="{_inline(wide)}"></picture>'
      f"<figcaption>{_safe(caption)}</figcaption></figure>"
    )

  def write(self, title: str) -> pathlib.Path:
    """Writes index.html; returns its path."""
    contents = "".join(
      f'<a href="#{i}">{_safe(name)}</a>'
      for i, name in enumerate(self._sections)
    )
    # Most readers look for the first section, so the contents follow it.
    first, second, others = "".join(self._parts).partition('<h2 id="1">')
    files = importlib.resources.files("acme_stac.evaluation")
    template = string.Template(
      (files / "data" / "page.html").read_text(encoding="utf-8")
    )
    path = self._output / "index.html"
    path.write_text(template.substitute(
      title=_safe(title), body=f"{first}<nav>{contents}</nav>{second}{others}"
    ), encoding="utf-8")
    return path


def _png(figure: Figure) -> bytes:
  buffer = io.BytesIO()
  styles.save(figure, buffer, _DPI)
  return buffer.getvalue()


def _inline(png: bytes) -> str:
  return f"data:image/png;base64,{base64.b64encode(png).decode()}"
