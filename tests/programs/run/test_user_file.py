"""Files of users: what is said when one cannot be read."""

import pathlib
import re

import pytest

from programs.run import user_file
from programs.run.errors import UserError

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.parametrize("here,named", [
  (ROOT, "files: configs/atari.py"),
  (ROOT / "tests", str(ROOT / "configs" / "atari.py")),
])
def test_the_projects_files_are_named_from_every_directory(
  monkeypatch, here, named
):
  monkeypatch.chdir(here)
  with pytest.raises(UserError, match=re.escape(named)):
    user_file.call("configs/smal.py", "get_config", "--config", "configs")
