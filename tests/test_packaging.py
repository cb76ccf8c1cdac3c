"""What an installed package is, without the project around it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import acme_stac
from acme_stac import doctor
from tests.core import test_imports

ROOT = pathlib.Path(__file__).parents[1]
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""

# Byte code would take half of the time of an install; pip reads it inverted.
NO_BYTE_CODE = {"PIP_NO_COMPILE": "0"}


def pip(venv):
  """The command that installs into an empty environment, made here.

  uv's where it is, as in setup.sh: it takes a tenth of pip's time.
  """
  if shutil.which("uv") and not subprocess.run(
    ["uv", "--version"], cwd=ROOT, capture_output=True
  ).returncode:
    subprocess.run(
      ["uv", "venv", "--quiet", "--python", sys.executable, venv],
      cwd=ROOT, check=True,
    )
    return f"uv pip install --quiet --python {venv / 'bin' / 'python'}"
  subprocess.run([sys.executable, "-m", "venv", venv], check=True)
  return f"{venv / 'bin' / 'pip'} install --quiet"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A copy of what git knows of, as a clone has it."""
  folder = tmp_path_factory.mktemp("source")
  listed = subprocess.run(
    ["git", "ls-files", "-co", "--exclude-standard"],
    cwd=ROOT, capture_output=True, text=True,
  )
  if listed.returncode:
    pytest.skip("This is no clone.")
  for name in listed.stdout.splitlines():
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(ROOT / name, folder / name)
  return folder


def build(source, what, folder):
  result = subprocess.run(
    [sys.executable, "-c", BUILD, what, folder],
    cwd=source, capture_output=True, text=True,
  )
  assert result.returncode == 0, result.stderr
  return folder / result.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
  return build(source, "build_wheel", tmp_path_factory.mktemp("wheel"))


def modules(folder):
  return {
    path.relative_to(folder).as_posix()
    for path in (folder / "acme_stac").rglob("*.py")
  }


def test_wheel(source, wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  assert modules(source) <= names
  # What modules read is there, and nothing of other packages' names.
  assert "acme_stac/environments/data/rwrl_challenges.yaml" in names
  assert "acme_stac/evaluation/data/atari57_human_random.csv" in names
  tops = {name.partition("/")[0] for name in names}
  assert tops == {"acme_stac", "acme_stac-0.1.0.dist-info"}
  assert any(name.endswith("licenses/LICENSE") for name in names)


def test_sdist(source, tmp_path):
  archive = build(source, "build_sdist", tmp_path)
  with tarfile.open(archive) as file:
    names = {name.partition("/")[2] for name in file.getnames()}
  assert modules(source) <= names
  assert {"pyproject.toml", "README.md", "LICENSE"} <= names


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
  """A folder with the wheel alone; what it depends on comes from here."""
  folder = tmp_path_factory.mktemp("installed")
  zipfile.ZipFile(wheel).extractall(folder)
  return folder


def run_installed(installed, code, blocked=test_imports.DISTRIBUTED):
  """Runs code with the wheel, where the distributed stack is not installed."""
  program = test_imports.BLOCK.format(blocked=blocked) + (
    "import importlib.machinery\n"
    # An editable install would be found before the wheel.
    "sys.meta_path = [f for f in sys.meta_path if 'Editable' not in str(f)]\n"
    f"sys.path.insert(0, {str(installed)!r})\n"
  ) + code
  return subprocess.run(
    [sys.executable, "-c", program],
    cwd=installed, capture_output=True, text=True,
  )


def test_core_of_a_wheel(installed):
  result = run_installed(installed, """
import time
started = time.perf_counter()
import acme_stac
print(time.perf_counter() - started)
print(acme_stac.__file__)
print(sorted(m for m in ("jax", "numpy", "tensorflow") if m in sys.modules))
import jax, numpy as np
from acme_stac import core, environments
environment = environments.make("catch", seed=0)
config = acme_stac.make_config("stacx", "small", torso_sizes=(8,),
  head_sizes=(8,), batch_size=2, trajectory_length=3)
networks = acme_stac.make_networks(environments.environment_spec(environment),
  config)
state = core.make_update(networks, config).init(jax.random.PRNGKey(0))
print(int(state.step), "tensorflow" in sys.modules)
""")
  assert result.returncode == 0, result.stderr
  seconds, file, loaded, last = result.stdout.splitlines()
  assert float(seconds) < 1.0
  assert file.startswith(str(installed))
  assert loaded == "[]"
  assert last == "0 False"


def test_what_needs_more_says_so(installed):
  for code, message in (
    ("acme_stac.STACBuilder", "python -m acme_stac.doctor"),
    ("acme_stac.environments.make('gymnasium:CartPole-v1')", "gymnasium"),
    ("acme_stac.environments.make('atari:pong')", "ale-py"),
  ):
    result = run_installed(installed, f"import acme_stac\n{code}")
    last = result.stderr.strip().splitlines()[-1]
    assert "ImportError" in last or "ModuleNotFoundError" in last, last
    assert message in last, last


def test_requirements_are_those_of_the_lock():
  """Each exact version that the extra asks for is the one that is locked."""
  text = (ROOT / "requirements.lock").read_text()
  project = (ROOT / "pyproject.toml").read_text()
  exact = [
    line.strip().strip('",')
    for line in project.partition("distributed = [")[2].splitlines()
    if "==" in line.partition("]")[0]
  ]
  exact = exact[: exact.index("tensorflow-probability==0.20.1") + 1]
  assert len(exact) > 8
  for requirement in exact:
    assert f"\n{requirement} \\" in text, requirement


def test_doctor(capsys):
  """This environment is whole, or the tests would not be here."""
  assert doctor.main([]) == 0
  said = capsys.readouterr().out
  assert "BROKEN" not in said
  for check in ("Python", "core", "versions", "binaries", "Reverb", "courier",
                "TensorBoard"):
    assert f"ok     {check}: " in said


def test_doctor_finds_what_is_wrong(tmp_path, monkeypatch, capsys):
  # A package that another TensorFlow was built against, for instance.
  (tmp_path / "reverb.py").write_text("raise ImportError('undefined symbol')")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  monkeypatch.setattr(doctor, "_HOST", ())
  monkeypatch.setattr(
    doctor, "_PROGRAM",
    [c for c in doctor._PROGRAM if c.name in ("binaries", "Reverb")],
  )
  assert doctor.main([]) == 1
  said = capsys.readouterr().out
  assert "BROKEN binaries: ImportError: undefined symbol" in said
  # The same again would be no news.
  assert "Reverb: not tried, as it needs binaries\n" in said
  assert "make setup" in said


def test_doctor_blames_a_device_that_does_not_work(monkeypatch, capsys):
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")
  monkeypatch.setattr(doctor, "_HOST", ())
  monkeypatch.setattr(doctor, "_PROGRAM", ())
  assert doctor.main([]) == 1
  said = capsys.readouterr().out
  assert "ok     core: " in said
  assert "BROKEN devices: JAX cannot compute on its devices" in said
  assert "GPU: not tried, as it needs devices\n" in said


@pytest.mark.parametrize("script,said", [
  ("exit 1", "the process printed nothing"),
  ("kill -SEGV $$", "the process ended by signal 11"),
  ("sleep 60", "no answer within 1 s"),
])
def test_doctor_of_a_process_that_dies(tmp_path, monkeypatch, script, said):
  python = tmp_path / "python"
  python.write_text(f"#!/bin/bash\n{script}\n")
  python.chmod(0o755)
  monkeypatch.setattr(sys, "executable", str(python))
  monkeypatch.setattr(doctor, "_TIMEOUT_SECONDS", 1.0)
  check = doctor.Check("gone", lambda: "", "advice")
  assert doctor._run_apart(check) == (False, said)


@pytest.mark.parametrize(("package", "wanted"), [
  ("dm-acme", "==0.4.0"),
  # pyproject.toml says nothing of these; Reverb and TensorFlow load them.
  ("protobuf", ""), ("numpy", ""), ("ml-dtypes", ""), ("grpcio", ""),
  ("wrapt", ""), ("keras", ""), ("cloudpickle", ""),
])
def test_doctor_names_wrong_versions(monkeypatch, package, wanted):
  version = doctor.importlib.metadata.version

  def other(name):
    return "99.9" if name == package else version(name)

  monkeypatch.setattr(doctor.importlib.metadata, "version", other)
  with pytest.raises(doctor.Problem, match=f"{package} 99.9, not {wanted}"):
    doctor._versions()


def test_doctor_looks_at_the_lock_of_its_own_installation():
  lock = pathlib.Path(doctor.__file__).parents[1] / "requirements.lock"
  assert lock == doctor._LOCK
  assert {"protobuf", "numpy", "absl-py"} <= doctor._with_requirements(
    doctor._COMPILED
  )


def test_doctor_without_the_distributed_stack(installed):
  result = run_installed(
    installed,
    "from acme_stac import doctor\n"
    "doctor._is_installed = lambda name: False\n"
    "sys.exit(doctor.main([]))",
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "Acme, Launchpad and Reverb are not installed" in result.stdout


def test_lazy_names():
  for name in acme_stac._LAZY:
    assert getattr(acme_stac, name) is not None
  with pytest.raises(AttributeError, match="no attribute 'colour'"):
    acme_stac.colour  # noqa: B018


def test_pip_installs_the_core(wheel, tmp_path):
  """In an empty environment, with whatever pip finds for it."""
  venv = tmp_path / "venv"
  command = pip(venv)

  def install(what):
    return subprocess.run(
      [*command.split(), what], cwd=ROOT, env=os.environ | NO_BYTE_CODE,
      capture_output=True, text=True,
    )

  if install("packaging").returncode:
    pytest.skip("There is no package index here.")
  installed = install(wheel)
  assert installed.returncode == 0, installed.stderr
  result = subprocess.run(
    [venv / "bin" / "python", "-m", "acme_stac.doctor"],
    cwd=tmp_path, capture_output=True, text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert "ok     core: " in result.stdout
  assert "Acme, Launchpad and Reverb are not installed" in result.stdout
  page = (ROOT / "docs" / "own_loop.md").read_text()
  loop = page.partition("```python\n")[2].partition("```")[0]
  (tmp_path / "own_loop.py").write_text(
    loop.replace("environment_steps=160_000", "environment_steps=32_000")
  )
  result = subprocess.run(
    [venv / "bin" / "python", "own_loop.py"],
    cwd=tmp_path, capture_output=True, text=True,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith("100 updates: ")


@pytest.mark.slow
def test_the_stack_comes_by_the_one_command_that_is_documented(
  source, tmp_path
):
  """In an empty environment of the user's; needs the package index."""
  page = (ROOT / "docs" / "acme.md").read_text()
  (command,) = re.findall(r"^    (pip install .*)$", page, re.MULTILINE)
  venv = tmp_path / "venv"
  clone = shutil.copytree(source, tmp_path / "clone")
  environment = {
    name: value for name, value in os.environ.items() if name != "PYTHONPATH"
  }
  environment["PATH"] = f"{venv / 'bin'}:{environment['PATH']}"
  environment |= NO_BYTE_CODE
  try:
    install = subprocess.run(
      command.replace("pip install", pip(venv)), shell=True, cwd=clone,
      env=environment, capture_output=True, text=True,
    )
    assert install.returncode == 0, install.stderr[-2000:]
    shutil.rmtree(clone)
    check = subprocess.run(
      ["python", "-m", "acme_stac.doctor"], cwd=tmp_path, env=environment,
      capture_output=True, text=True,
    )
    assert check.returncode == 0, check.stdout
    for name in ("core", "versions", "binaries", "Reverb", "courier"):
      assert f"ok     {name}: " in check.stdout
  finally:
    # It has gigabytes.
    shutil.rmtree(venv, ignore_errors=True)
