"""Hooks of mkdocs: makes one site of README.md, docs/ and the docstrings."""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# A page of the site -> the file of the repository that it shows.
_PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}


def _api_pages() -> dict[str, list[str]]:
  """Returns the modules of each page of the API, by package."""
  pages: dict[str, list[str]] = {}
  for path in sorted((_ROOT / "acme_stac").rglob("[a-z]*.py")):
    module = path.relative_to(_ROOT).with_suffix("").parts
    package = module[1] if len(module) > 2 else module[0]
    pages.setdefault(f"api/{package}.md", []).append(".".join(module))
  return pages


def on_config(config: MkDocsConfig) -> MkDocsConfig:
  """Adds the API to the navigation."""
  config.nav.append({"API": list(_api_pages())})
  return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the pages that are not in docs/, and the files that pages link to."""
  for uri, name in _PAGES.items():
    text = (_ROOT / name).read_text().replace("](docs/", "](")
    text = text.replace("](CHANGELOG.md", "](changelog.md")
    files.append(File.generated(config, uri, content=text))
  for uri, modules in _api_pages().items():
    title = pathlib.PurePath(uri).stem
    text = "\n\n".join([f"# {title}", *(f"::: {name}" for name in modules)])
    files.append(File.generated(config, uri, content=text))
  files.append(
    File.generated(
      config, "CITATION.cff", abs_src_path=str(_ROOT / "CITATION.cff")
    )
  )
  for path in sorted((_ROOT / "docs").glob("*.md")):
    for name in re.findall(r"\]\(\.\./([^)#]+)", path.read_text()):
      source = str(_ROOT / name)
      files.append(File.generated(config, f"tree/{name}", abs_src_path=source))
  return files


def on_page_markdown(
  markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
  """Leads links out of docs/ to the copies that `on_files` added."""
  if "/" in page.file.src_uri:
    return markdown
  return markdown.replace("](../", "](tree/")
