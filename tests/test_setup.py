"""What make does before anything is installed."""

import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).parents[1]


def test_wrong_python_is_refused(tmp_path):
  result = subprocess.run(
    ["bash", ROOT / "setup.sh", tmp_path / "venv"],
    env={**os.environ, "PYTHON": "/bin/false"},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1
  assert "PYTHON=/bin/false is not a Python 3.10" in result.stderr
  assert not (tmp_path / "venv").exists()


def test_no_python_says_what_to_do(tmp_path):
  """With nothing but what the script itself calls on the path."""
  for tool in ("dirname", "uname", "bash"):
    path = subprocess.run(
      ["which", tool], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / tool).symlink_to(path)
  result = subprocess.run(
    [tmp_path / "bash", ROOT / "setup.sh", tmp_path / "venv"],
    env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1
  for hint in ("uv python install 3.10", "pyenv install 3.10", "PYTHON="):
    assert hint in result.stderr


def test_lock_has_hashes_and_no_addresses():
  text = (ROOT / "requirements.lock").read_text()
  assert "://" not in text and "index" not in text
  requirements = re.findall(r"^([a-z0-9._-]+)==\S+ (\\?)$", text, re.MULTILINE)
  assert len(requirements) > 60
  # Every one goes on with its hashes.
  assert all(rest == "\\" for _, rest in requirements)
  assert re.search(r"^jax==0\.6\.2 ", text, re.MULTILINE)


def test_python_version_file():
  assert (ROOT / ".python-version").read_text().strip() == "3.10"
