"""The README's code runs as it stands."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_code_blocks():
  text = (ROOT / "README.md").read_text()
  blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  assert len(blocks) == 2
  names: dict = {}
  for block in blocks:
    exec(block, names)
  assert names["state"].step == 0
  assert callable(names["step"])


def test_links_and_pictures_exist():
  for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
    for link in re.findall(r"\]\(([^)#]+)", path.read_text()):
      if "://" not in link:
        assert (path.parent / link).exists(), f"{path}: {link}"
