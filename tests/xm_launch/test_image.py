"""What an image holds, without Docker: see tests/support/image.py."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.support import image

ROOT = pathlib.Path(__file__).parents[2]
LOCKS = {
  "requirements.lock": (90, "jax", "0.6.2"),
  "xm_launch/requirements.lock": (80, "xmanager", "0.8.5.post1"),
  "xm_launch/cuda12.lock": (10, "jax-cuda12-plugin", "0.6.2"),
  "xm_launch/tpu.lock": (1, "libtpu", "0.0.17"),
}


def packages(lock):
  text = (ROOT / lock).read_text()
  return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  return image.build(tmp_path_factory.mktemp("image"))


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_have_hashes_and_no_addresses(lock):
  text = (ROOT / lock).read_text()
  least, name, version = LOCKS[lock]
  assert "://" not in text and "index" not in text
  assert packages(lock)[name] == version
  lines = re.findall(r"^[a-z0-9._-]+==.*$", text, re.MULTILINE)
  assert len(lines) == len(packages(lock)) >= least
  # Every one goes on with its hashes.
  assert all(line.endswith(" \\") for line in lines)


@pytest.mark.parametrize("name", ["cuda12", "tpu"])
def test_accelerators_only_add(name):
  added = packages(f"xm_launch/{name}.lock")
  assert not added.keys() & packages("requirements.lock").keys()


def test_plugin_is_of_the_same_jax():
  """jax 0.6.2 asks for libtpu==0.0.17.*; its metadata say so too."""
  jaxlib = packages("requirements.lock")["jaxlib"]
  cuda = packages("xm_launch/cuda12.lock")
  assert cuda["jax-cuda12-plugin"] == cuda["jax-cuda12-pjrt"] == jaxlib
  from importlib import metadata

  needed, = [
    requirement
    for requirement in metadata.requires("jax") or []
    if requirement.startswith("libtpu")
  ]
  version = packages("xm_launch/tpu.lock")["libtpu"]
  assert re.match(r"libtpu==([\d.]+)\.\*", needed).group(1) == version


def test_dockerfile():
  found = image.instructions((ROOT / image.DOCKERFILE).read_text())
  # Nothing but what the lock files name comes from a package index.
  installs = [
    command
    for name, rest in found
    if name == "RUN"
    for command in re.split(r"&&|;|then", rest)
    if "pip install" in command
  ]
  assert len(installs) == 2
  for command in installs:
    for flag in ("--no-deps", "--no-build-isolation", "--require-hashes"):
      assert flag in command
    assert re.search(r"locks/(requirements|\$\{ACCELERATOR\})\.lock", command)
  names = [name for name, _ in found]
  assert names.index("USER") > names.index("RUN")
  assert ("ARG", "USER_ID=1000") in found
  assert not {"ADD", "SECRET"} & set(names)


@pytest.mark.parametrize("path, ignored", [
  ("acme_stac/config.py", False),
  ("acme_stac/environments/data/rwrl_challenges.yaml", False),
  ("requirements.lock", False),
  ("xm_launch/cuda12.lock", False),
  ("acme_stac/__pycache__/config.cpython-310.pyc", True),
  ("acme_stac/.env", True),
  ("configs/credentials.json", True),
  ("programs/token.txt", True),
  ("configs/service-account.key", True),
  (".git/config", True),
  (".venv/bin/python", True),
  ("runs/pong/config.json", True),
  ("secrets.yaml", True),
  ("xm_launch/pong.yaml", True),
])
def test_dockerignore(path, ignored):
  lines = (ROOT / ".dockerignore").read_text().splitlines()
  patterns = [line for line in lines if line and not line.startswith("#")]
  assert image.is_ignored(path, patterns) == ignored


def test_root_holds_the_code_and_nothing_else(built):
  folder, _ = built
  assert {path.name for path in folder.iterdir()} == {
    "LICENSE", "acme_stac", "configs", "locks", "programs"
  }
  tracked = subprocess.run(
    ["git", "ls-files", "acme_stac", "configs", "programs"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  if tracked.returncode:
    pytest.skip("no git repository here")
  made = {
    path.relative_to(folder).as_posix()
    for path in folder.rglob("*")
    if path.is_file() and path.parent.name != "locks"
  }
  assert set(tracked.stdout.split()) <= made
  kinds = {pathlib.Path(name).suffix for name in made}
  assert kinds <= {"", ".py", ".yaml", ".csv", ".html"}


def test_what_lies_about_stays_out(tmp_path):
  tree = tmp_path / "tree"
  for name in ("acme_stac", "configs", "programs", "xm_launch"):
    shutil.copytree(
      ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__")
    )
  for name in ("LICENSE", "requirements.lock", ".dockerignore"):
    shutil.copy(ROOT / name, tree / name)
  for name in (
    ".env", "key.json", "runs/pong/config.json", ".venv/bin/python",
    "programs/.netrc", "configs/id.pem", "acme_stac/__pycache__/x.pyc",
  ):
    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text("secret")
  image.build(tmp_path / "image", tree)
  for path in (tmp_path / "image").rglob("*"):
    assert path.is_dir() or path.read_bytes() != b"secret", path


def test_a_missing_file_is_named(tmp_path):
  (tmp_path / "xm_launch").mkdir()
  shutil.copy(ROOT / image.DOCKERFILE, tmp_path / image.DOCKERFILE)
  shutil.copy(ROOT / ".dockerignore", tmp_path)
  with pytest.raises(FileNotFoundError, match="copies requirements.lock"):
    image.build(tmp_path / "image", tmp_path)


def run_in(folder, entry_point, *arguments):
  """Runs the entry point as the container would, with this interpreter."""
  python, *rest = entry_point
  assert python == "python"
  return subprocess.run(
    [sys.executable, *rest, *arguments],
    cwd=folder,
    env={**os.environ, "PYTHONPATH": str(folder)},
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_the_copy_is_imported(built):
  folder, _ = built
  code = "import acme_stac, configs, programs as p; print(acme_stac.__file__,"
  code += " configs.__file__, p.__file__)"
  result = run_in(folder, ["python", "-c", code])
  files = result.stdout.split()
  assert len(files) == 3, result.stderr
  assert all(file.startswith(str(folder)) for file in files)


@pytest.mark.slow
def test_entry_point_trains(built, tmp_path):
  """Configuration files, environments and their data are found."""
  folder, entry_point = built
  assert entry_point == ["python", "-m", "programs.train"]
  result = run_in(
    folder,
    entry_point,
    "--config=configs/small.py:catch",
    "--config.num_environment_steps=500",
    "--config.evaluation.episodes=0",
    "--config.stac.torso_sizes=(16,)",
    "--config.stac.head_sizes=(16,)",
    "--launch=serial",
    f"--workdir={tmp_path}",
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert (tmp_path / "logs" / "learner.csv").exists()
