"""What make does before anything is installed, and the locks it installs."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from acme_stac import accelerator

ROOT = pathlib.Path(__file__).parents[1]
# Of every lock: the fewest packages that it can have, and one of them.
LOCKS = {
  "requirements.lock": (60, "jax==0.6.2"),
  "requirements-current.lock": (60, "jax==0.12"),
  "locks/current-cuda12.lock": (10, "jax-cuda12-plugin==0.12"),
  "locks/current-cuda13.lock": (10, "jax-cuda13-plugin==0.12"),
  "locks/current-tpu.lock": (1, "libtpu=="),
}


def setup(*arguments, clone=ROOT, **variables):
  return subprocess.run(
    ["bash", clone / "setup.sh", *arguments],
    env={**os.environ, **variables}, capture_output=True, text=True,
  )


@pytest.mark.parametrize("stack,versions", [
  ("distributed", "3.10"), ("current", "3.12 or 3.13 or 3.11"),
])
def test_wrong_python_is_refused(stack, versions):
  result = setup(stack, "--dry-run", PYTHON="/bin/false")
  assert result.returncode == 1
  assert f"PYTHON=/bin/false is not a Python {versions}" in result.stderr


def test_no_python_says_what_to_do(tmp_path):
  """With nothing but what the script itself calls on the path."""
  for tool in ("dirname", "uname", "bash", "cat", "sha256sum"):
    path = subprocess.run(
      ["which", tool], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / tool).symlink_to(path)
  result = subprocess.run(
    [tmp_path / "bash", ROOT / "setup.sh", "distributed", "--dry-run"],
    env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1
  for hint in ("uv python install 3.10", "pyenv install 3.10", "PYTHON="):
    assert hint in result.stderr


@pytest.fixture
def tools(tmp_path):
  """A Python of every version; `driver` writes an nvidia-smi beside it."""

  def write(name, text):
    (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
    (tmp_path / name).chmod(0o755)

  write("python", "echo Python 3.x")

  # Without the environments of this clone.
  clone = tmp_path / "clone"
  clone.mkdir()
  shutil.copy(ROOT / "setup.sh", clone)
  for name in (
    "locks", "pyproject.toml", "requirements.lock", "requirements-current.lock",
    "xm_launch",
  ):
    (clone / name).symlink_to(ROOT / name)

  def run(stack, driver, kept="", **variables):
    write("nvidia-smi", f"echo {driver}" if driver else "exit 9")
    if kept:
      (clone / ".venv-current").mkdir(exist_ok=True)
      (clone / ".venv-current" / ".complete").write_text(f"old\n{kept}\n")
    return setup(
      stack, "--dry-run", clone=clone,
      PATH=f"{tmp_path}:{os.environ['PATH']}",
      PYTHON=str(tmp_path / "python"), **variables,
    )

  return run


@pytest.mark.parametrize("stack,driver,asked,locks", [
  ("distributed", "", "", "requirements.lock"),
  ("distributed", "580.95.05", "", "requirements.lock xm_launch/cuda12.lock"),
  ("distributed", "580.95.05", "cpu", "requirements.lock"),
  ("distributed", "", "tpu", "requirements.lock xm_launch/tpu.lock"),
  ("current", "", "", "requirements-current.lock"),
  ("current", "550.54.15", "",
   "requirements-current.lock locks/current-cuda12.lock"),
  ("current", "580.95.05", "",
   "requirements-current.lock locks/current-cuda13.lock"),
  ("current", "580.95.05", "cuda12",
   "requirements-current.lock locks/current-cuda12.lock"),
  ("current", "", "tpu", "requirements-current.lock locks/current-tpu.lock"),
  # XManager computes nothing.
  ("xm", "580.95.05", "cuda12", "xm_launch/requirements.lock"),
])
def test_accelerator_is_the_one_asked_for_or_found(
  tools, stack, driver, asked, locks
):
  result = tools(stack, driver, ACCELERATOR=asked)
  assert result.returncode == 0, result.stderr
  assert result.stdout.endswith(f", from {locks}\n")
  assert all((ROOT / lock).is_file() for lock in locks.split())


def test_drivers_are_those_that_the_doctor_asks_for(tools):
  cuda12, cuda13 = accelerator.DRIVERS["cuda12"], accelerator.DRIVERS["cuda13"]
  for driver, found in (
    (cuda12 - 1, "cpu"), (cuda12, "cuda12"), (cuda13 - 1, "cuda12"),
    (cuda13, "cuda13"),
  ):
    result = tools("current", f"{driver}.1", ACCELERATOR="")
    assert f" for {found}, from" in result.stdout
    # It says why.
    assert (f"driver {driver} is too old" in result.stderr) == (found == "cpu")


def test_the_accelerator_of_an_environment_is_kept(tools):
  for driver in ("", "580.95.05"):
    result = tools("current", driver, kept="cuda12", ACCELERATOR="")
    assert result.stdout.endswith("locks/current-cuda12.lock\n")
  result = tools("current", "580.95.05", ACCELERATOR="cpu")
  assert result.stdout.endswith(", from requirements-current.lock\n")


@pytest.mark.parametrize("stack,asked,allowed", [
  ("distributed", "cuda13", "cpu cuda12 tpu"),
  ("current", "cuda11", "cpu cuda12 cuda13 tpu"),
])
def test_wrong_accelerator_is_refused(tools, stack, asked, allowed):
  result = tools(stack, "", ACCELERATOR=asked)
  assert result.returncode == 1
  assert f"ACCELERATOR={asked} is none of the {stack}" in result.stderr
  assert allowed in result.stderr


def test_wrong_stack_is_refused():
  result = setup("newest", "--dry-run")
  assert result.returncode == 1
  assert "neither 'distributed' nor 'current'" in result.stderr


def requirements(lock):
  text = (ROOT / lock).read_text()
  return re.findall(r"^([a-z0-9._-]+)==(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_and_no_addresses(lock):
  text = (ROOT / lock).read_text()
  least, package = LOCKS[lock]
  assert "://" not in text and "index" not in text
  assert f"\n{package}" in text
  found = requirements(lock)
  assert len(found) >= least
  # Every one goes on with its hashes.
  assert all(rest.endswith(" \\") for _, rest in found)


@pytest.mark.parametrize("accelerator", ["cuda12", "cuda13", "tpu"])
def test_accelerators_only_add_to_the_current_stack(accelerator):
  have = dict(requirements("requirements-current.lock"))
  added = requirements(f"locks/current-{accelerator}.lock")
  assert not have.keys() & dict(added).keys()
  # The plugins are of the same JAX, for every Python.
  jax = {v for name, v in requirements("requirements-current.lock")
         if name == "jax"}
  plugins = {v for name, v in added if name.startswith("jax-")}
  assert not plugins or plugins == jax


def test_the_current_lock_has_nothing_of_the_distributed_layer():
  names = dict(requirements("requirements-current.lock"))
  for name in ("dm-acme", "dm-launchpad-nightly", "dm-reverb", "tensorflow",
               "tensorflow-cpu"):
    assert name not in names


def test_python_version_file():
  assert (ROOT / ".python-version").read_text().strip() == "3.10"
