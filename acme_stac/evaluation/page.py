"""One HTML page that needs no other file: sections, tables and figures."""

import base64
import html
import io
import pathlib
import re
import string
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from acme_stac.evaluation import drawing, plots
from acme_stac.evaluation.statistics import Estimate
from acme_stac.evaluation.text import printable

# Of a picture, in dots per inch.
_DPI = 130

_PAGE = string.Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  margin: 0 auto; padding: 0 1rem 3rem; max-width: 60rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05rem; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; font-size: .9rem; }
/* A shadow at the side where a table goes on. */
.table { overflow-x: auto; margin: 1rem 0; background:
  linear-gradient(90deg, #fff 30%, transparent) left / 3rem 100% local,
  linear-gradient(270deg, #fff 30%, transparent) right / 3rem 100% local,
  linear-gradient(90deg, #0003, transparent) left / .8rem 100% scroll,
  linear-gradient(270deg, #0003, transparent) right / .8rem 100% scroll;
  background-repeat: no-repeat; }
table { border-collapse: collapse; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; overflow-wrap: normal;
  border-bottom: 1px solid #ddd; }
th { vertical-align: bottom; }
th:first-child, td:first-child, .text td, .text th { text-align: left; }
td:first-child { min-width: 6rem; }
.answer { font-size: 1rem; } .answer td:first-child { font-weight: 600; }
.part { white-space: nowrap; } .interval { color: #555; }
.warning { background: #fff3cd; padding: .5rem .8rem; }
summary { cursor: pointer; margin: .6rem 0; }
nav { columns: 14rem; font-size: .9rem; } nav a { display: block; }
@media (max-width: 50rem) { th, td { padding: .2rem .35rem; } }
@media (max-width: 40rem) { table { font-size: .75rem; }
  .answer { font-size: .8rem; } .answer .part { white-space: normal; }
  td:first-child { overflow-wrap: anywhere; } }
@media print { body { max-width: none; font-size: 10pt; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .table { overflow: visible; } table { font-size: 7.5pt; }
  th, td { padding: .1rem .3rem; } }
</style></head><body>
<h1>$title</h1>
$body
</body></html>
""")


def slug(text: str) -> str:
  """Returns a part of a file's name."""
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

  def __init__(self, output: pathlib.Path):
    """Begins an empty page.

    Args:
      output: directory to write to.
    """
    self._output = output
    self._parts: list[str] = []
    self._contents: list[str] = []
    self.written: list[pathlib.Path] = []

  def section(self, title: str):
    """Begins a section."""
    number = len(self._contents)
    self._contents.append(title)
    self._parts.append(f'<h2 id="{number}">{_safe(title)}</h2>')

  def heading(self, title: str):
    """Begins a part of a section."""
    self._parts.append(f"<h3>{_safe(title)}</h3>")

  def text(self, text: str, kind: str = "note"):
    """Adds a paragraph: a "note" or a "warning"."""
    self._parts.append(f'<p class="{kind}">{_safe(text)}</p>')

  def fold(self, summary: str, opened: bool = False):
    """Begins what is folded below a line of text, until `unfold`."""
    self._parts.append(
      f"<details{' open' if opened else ''}>"
      f"<summary>{_safe(summary)}</summary>"
    )

  def unfold(self):
    """Ends what is folded."""
    self._parts.append("</details>")

  def table(
    self, head: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = ""
  ):
    """Adds a table, which scrolls by itself where it is too wide.

    Args:
      head: a cell a column.
      rows: as many cells each; an `Estimate` is written with its interval, and
        may come with a note, as a pair.
      kind: "text" for columns of text, "answer" for the first table.
    """
    def line(cells: Sequence[Any], tag: str) -> str:
      inside = "".join(f"<{tag}>{_cell(cell)}</{tag}>" for cell in cells)
      return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows)
    self._parts.append(
      f'<div class="table"><table class="{kind}"><thead>{line(head, "th")}'
      f"</thead><tbody>{body}</tbody></table></div>"
    )

  def figure(self, figure: Figure | None, name: str, caption: str):
    """Adds a figure for wide and for narrow windows, and writes the wide one.

    Args:
      figure: of `drawing`; None adds nothing.
      name: of the file, which gets a number if there is one of that name.
      caption: below the figure, and in its place for who does not see it.
    """
    if figure is None:
      return
    path = self._output / f"{slug(name)}.png"
    number = 1
    while path in self.written:
      number += 1
      path = self._output / f"{slug(name)}_{number}.png"
    wide = _png(figure)
    plots.regular(path).write_bytes(wide)
    self.written.append(path)
    drawing.narrow(figure)
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
      for i, name in enumerate(self._contents)
    )
    # After the first section, which is what most readers look for.
    body = "".join(self._parts)
    first, second, others = body.partition('<h2 id="1">')
    path = self._output / "index.html"
    plots.regular(path).write_bytes(_PAGE.substitute(
      title=_safe(title), body=f"{first}<nav>{contents}</nav>{second}{others}"
    ).encode("utf-8"))
    return path


def _png(figure: Figure) -> bytes:
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=_DPI)
  return buffer.getvalue()


def _inline(png: bytes) -> str:
  return f"data:image/png;base64,{base64.b64encode(png).decode()}"
