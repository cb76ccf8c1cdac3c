"""What the README and the pages of docs/ show runs as it stands."""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import yaml

import acme_stac
from acme_stac import reference
from programs import sweep
from programs.launch import cluster
from programs.launch import flags as run_flags
from programs.run import validation
from tests.agent import test_layouts
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
  path.relative_to(ROOT).as_posix(): path.read_text()
  for path in (
    ROOT / "README.md", ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
  )
}
# Prints the help of commands. One process imports their packages once.
HELP = """
import contextlib, runpy, sys

for command in sys.argv[1:]:
  print("=====", command)
  sys.argv = [*command.split(), "--help"]
  with contextlib.suppress(SystemExit):
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
  sys.stdout.flush()
"""
# Where Python is shown, and how many blocks; the tests below have each of them.
PYTHON = {
  "README.md": 2,
  "docs/acme.md": 4,
  # tests/environments/test_registry.py trains on it.
  "docs/environments.md": 1,
  "docs/howto.md": 2,
  "docs/on_device.md": 1,
  "docs/own_loop.md": 1,
  "docs/tutorial.md": 2,
}


def blocks(page, language):
  return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def script(page, name):
  """The block that says that it is the file `name`."""
  (block,) = (
    block for block in blocks(page, "python")
    if block.startswith(f'"""{name}: ')
  )
  return block


def run_script(folder, text, **variables):
  path = folder / "script.py"
  path.write_text(text)
  return subprocess.run(
    [sys.executable, path],
    cwd=folder,
    env={**runs.environment(), "PYTHONPATH": str(ROOT), **variables},
    capture_output=True,
    text=True,
    timeout=500,
  )


def commands():
  """(page, arguments) of every command of ours, without its variables."""
  for page, text in PAGES.items():
    lines = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"^    (\S.*)$", lines, re.MULTILINE):
      words = shlex.split(line, comments=True)
      while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
      if words[1:2] == ["-m"] and words[2] != "timeit":
        assert re.fullmatch(r"\.venv(-current)?/bin/python", words[0]), line
        yield page, words[2:]


def test_every_block_of_python_is_tested():
  found = {page: len(blocks(page, "python")) for page in PAGES}
  assert {page: n for page, n in found.items() if n} == PYTHON
  known = {"python", "yaml", ""}
  for page, text in PAGES.items():
    assert set(re.findall(r"^```(\w*)$", text, re.MULTILINE)) <= known, page


def test_readme():
  names: dict = {}
  for block in blocks("README.md", "python"):
    exec(block, names)
  assert names["state"].step == 0
  assert callable(names["step"])


def test_links_and_pictures_exist():
  pictures = set()
  for page, text in PAGES.items():
    for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
      if "://" in link:
        continue
      target = (ROOT / page).parent / link if link else ROOT / page
      assert target.exists(), f"{page}: {link}"
      pictures.add(target.resolve())
      if anchor:
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        # As GitHub makes them.
        anchors = [
          re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
          for heading in headings
        ]
        assert anchor in anchors, f"{page}: {link}#{anchor}"
  unused = set((ROOT / "docs" / "images").resolve().iterdir()) - pictures
  assert not unused


def test_data_is_there_and_names_no_place_of_the_machine_that_made_it():
  files = [
    path for path in sorted((ROOT / "docs" / "data").rglob("*"))
    if path.suffix in (".csv", ".json", ".md")
  ]
  assert all(path.stat().st_size for path in files)
  found = {
    path.name: match.group()
    for path in files
    for match in [re.search(r"(?<![\w./])/(tmp|home|root|mnt|work)/.*",
      path.read_text())]
    if match
  }
  assert not found


def test_the_site_builds_without_a_warning(tmp_path):
  pytest.importorskip("mkdocs")
  result = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path],
    capture_output=True, text=True, cwd=ROOT,
    env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
  )
  assert result.returncode == 0, result.stderr[-3000:]
  page = (tmp_path / "api" / "core" / "index.html").read_text()
  assert 'id="acme_stac.core.vtrace.leaky_vtrace"' in page
  assert (tmp_path / "tutorial" / "index.html").exists()


def test_the_citation_is_complete():
  citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
  assert citation["cff-version"] == "1.2.0"
  assert citation["message"] and citation["authors"]
  version = re.search(
    r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
  )
  assert citation["version"] == version[1]
  assert f"## [{version[1]}]" in PAGES["CHANGELOG.md"]
  paper = citation["preferred-citation"]
  assert paper["title"] == "A Self-Tuning Actor-Critic Algorithm"
  assert len(paper["authors"]) == 8 and paper["year"] == 2020


def test_core_in_a_loop_of_its_own(tmp_path):
  (block,) = blocks("docs/own_loop.md", "python")
  assert len(block.splitlines()) < 60
  result = run_script(tmp_path, block)
  assert result.returncode == 0, result.stderr
  ends, discount = re.findall(
    r"^500 updates: (\d+) ends, γ (\S+)$", result.stdout, re.MULTILINE
  )[0]
  assert int(ends) >= 36 and 0.95 < float(discount) < 1.0


def test_an_environment_of_ones_own_on_the_device(tmp_path):
  (block,) = blocks("docs/on_device.md", "python")
  result = run_script(tmp_path, block)
  assert result.returncode == 0, result.stderr
  ends = re.findall(r"^(\d+) ends in an update", result.stdout, re.MULTILINE)
  assert len(ends) == 4 and min(map(int, ends)) >= 25


def test_local_layout(tmp_path):
  result = run_script(tmp_path, script("docs/acme.md", "local.py"))
  assert result.returncode == 0, result.stderr
  assert list(tmp_path.glob("runs/acme/checkpoints/learner/ckpt-*"))
  policy = acme_stac.load_policy(tmp_path / "runs" / "acme" / "policy.npz")
  assert policy(np.zeros(5), policy.initial_state()).shape == (1,)


@pytest.mark.slow
def test_distributed_layout(tmp_path):
  result = run_script(tmp_path, script("docs/acme.md", "distributed.py"))
  said = result.stdout + result.stderr
  # Launchpad gives its threads 10 s to end and then kills their process, which
  # on a busy machine is in the middle of an update.
  ended = "Killing entire runtime" in said and -signal.SIGKILL
  assert result.returncode == int(ended), said[-3000:]
  assert "[Learner] " in said and "[Evaluator] " in said
  assert list(tmp_path.glob("runs/acme_distributed/checkpoints/learner/ckpt-*"))


def test_development_head(monkeypatch):
  """With a stand-in of its experiments."""
  done = []

  @dataclasses.dataclass
  class ExperimentConfig:
    builder: object
    network_factory: object
    environment_factory: object
    max_num_actor_steps: int
    seed: int

  def run_experiment(config):
    head = test_layouts.Head(
      config.builder,
      config.network_factory,
      config.environment_factory(2**32 - 1),
      lambda label: test_layouts.Rows(),
    )
    head.run(1500)
    done.append(head.learner_steps)

  stand_in = types.ModuleType("acme.jax.experiments")
  stand_in.ExperimentConfig = ExperimentConfig
  stand_in.run_experiment = run_experiment
  monkeypatch.setitem(sys.modules, "acme.jax.experiments", stand_in)
  monkeypatch.setattr("acme.jax.experiments", stand_in, raising=False)
  exec(script("docs/acme.md", "head.py"), {})
  assert done[0] > 0


def test_networks_of_ones_own_and_a_trained_policy(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
  (tmp_path / "tiny.py").write_text(script("docs/howto.md", "tiny.py"))
  arguments = (
    "--launch=serial", "--config.num_environment_steps=2000",
    *runs.SMALL[2:],
  )
  result = runs.run(
    "runs/tiny", *arguments, "--config.networks=python:tiny:make_networks",
    config=f"{ROOT}/configs/small.py:catch",
  )
  assert result.returncode == 0, result.stdout + result.stderr
  with pytest.raises(ValueError, match="trained with networks of 'python:tiny"):
    acme_stac.load_policy("runs/tiny")
  import tiny

  policy = acme_stac.load_policy(
    "runs/tiny", network_factory=tiny.make_networks
  )
  shapes = {
    name: weights.shape
    for name, layer in policy._params.items()
    for weights in layer.values()
    if weights.ndim == 2
  }
  assert shapes == {
    "linear": (50, 64), "linear_1": (64, 9), "linear_2": (64, 3)
  }

  result = runs.run(
    "runs/cartpole", *arguments,
    config=f"{ROOT}/configs/small.py:gymnasium:CartPole-v1",
  )
  assert result.returncode == 0, result.stdout + result.stderr
  names: dict = {}
  (block,) = (b for b in blocks("docs/howto.md", "python") if "tiny" not in b)
  exec(block, names)
  assert names["total"] >= 8.0
  rows, use = blocks("docs/tutorial.md", "python")
  exec(rows, names)
  said = capsys.readouterr().out
  assert re.findall(r"^head (\d): γ from 0\.9\d+ to", said, re.MULTILINE) == [
    "0", "1", "2"
  ]
  names["total"] = None
  exec(use, names)
  assert names["total"] >= 8.0


def test_flags_that_are_shown_exist():
  shown: dict[str, set[tuple[str, str]]] = {}
  for page, (module, *arguments) in commands():
    command = module
    if module == "programs.benchmark":
      # Any of them stands for it.
      command += " " + arguments[0].replace("BENCHMARK", "pipeline")
    names = {
      match.group(1)
      for word in arguments
      if (match := re.match(r"--(\w+)", word)) and "--config." not in word
    }
    shown.setdefault(command, set()).update((name, page) for name in names)
  assert len(shown) > 6
  result = subprocess.run(
    [sys.executable, "-c", HELP, *shown],
    capture_output=True, text=True, cwd=ROOT, env=runs.environment(),
  )
  assert result.returncode == 0, result.stderr
  parts = result.stdout.split("===== ")[1:]
  helps = dict(part.split("\n", 1) for part in parts)
  for command, names in shown.items():
    for name, page in names:
      assert re.search(rf"--{name}\b", helps[command]), (command, name, page)


def test_runs_that_are_shown(tmp_path, monkeypatch):
  """Every run that is shown could be started as it stands."""
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.chdir(ROOT)
  for page, name in (
    ("docs/environments.md", "corridor.py"), ("docs/howto.md", "tiny.py")
  ):
    (tmp_path / name).write_text(script(page, name))
  # Tests need not have it.
  monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: True
  )
  shown = [
    (page, words)
    for page, words in commands()
    if words[0] == "programs.train"
  ]
  assert len(shown) > 8
  first_run = re.search(
    r"^CONFIG \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
  )
  shown.append(
    ("Makefile", ["programs.train", f"--config={first_run[1]}", "--workdir="])
  )
  for _, words in shown:
    words = [f"--workdir={tmp_path}/run" if "--workdir" in w else w
             for w in words]
    parsed = run_flags.parse(words[1:])
    validation.make_experiment(
      parsed.config, parsed.num_actors, parsed.workdir
    )
  for _, words in commands():
    if words[0] == "programs.sweep":
      assert sweep.load_runs(words[1])


def test_cluster_files(tmp_path):
  for block in blocks("docs/operations.md", "yaml"):
    path = tmp_path / "cluster.yaml"
    path.write_text(block)
    assert "cluster" in yaml.safe_load(block)
    read = cluster.read(str(path), "10.0.0.3", 2)
    assert not read.is_learner_host and len(read.actors) == 2


def test_the_reference_is_made_from_the_configuration():
  """Otherwise: python -m acme_stac.reference > docs/reference.md."""
  assert PAGES["docs/reference.md"] == reference.reference()


def test_pages_name_what_the_tree_has():
  for top in ("acme_stac", "programs"):
    for path in (ROOT / top).glob("*/__init__.py"):
      assert f"{path.parent.name}/" in PAGES["docs/design.md"], path.parent
  for variable in ("WANDB_MODE", "MUJOCO_GL"):
    assert any(variable in text for text in PAGES.values())
