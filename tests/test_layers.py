"""The layers of installation: what is tested where, and what both can read."""

import json
import pathlib
import re
import shutil

import pytest

import acme_stac
from tests import conftest
from tests.data import record_layers
from tests.support import runs

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = ("distributed", "current")


@pytest.mark.parametrize("layer", LAYERS)
def test_a_policy_of_either_layer_acts_in_both(layer):
  run = record_layers.DATA / layer
  actions = json.loads((run / "actions.json").read_text())
  assert len(set(actions)) == 3
  for path in (run, run / "policy.npz"):
    policy = acme_stac.load_policy(path)
    assert record_layers.play(policy) == actions


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_a_run_of_either_layer_is_resumed_in_both(
  layer, tmp_path, quick_compilation, capsys
):
  run = shutil.copytree(record_layers.DATA / layer, tmp_path / layer)
  assert runs.train(
    run, *record_layers.ARGUMENTS[1:], "--config.num_environment_steps=3840"
  ) == 0
  assert "Resuming after 5 updates" in capsys.readouterr().out
  assert runs.states(run)[".step"] == 6


def test_tests_that_are_left_out_are_those_that_need_the_distributed_layer():
  tests = ROOT / "tests"
  for name in conftest.DISTRIBUTED:
    assert (tests / name).exists(), name
  left_out = bool(conftest.collect_ignore)
  # With any of its packages, all of them run.
  assert left_out == (not conftest.has_distributed_layer)
  imports = re.compile(
    rf"^(import|from) ({'|'.join(conftest.DISTRIBUTED_PACKAGES)})\b",
    re.MULTILINE,
  )
  for path in tests.rglob("test_*.py"):
    if imports.search(path.read_text()):
      name = path.relative_to(tests).as_posix()
      assert any(
        name == listed or name.startswith(f"{listed}/")
        for listed in conftest.DISTRIBUTED
      ), name


def test_what_the_current_stack_runs_exists():
  """And is nothing that conftest leaves out there."""
  makefile = (ROOT / "Makefile").read_text()
  listed = re.findall(r"tests/[\w/.]+", makefile.partition("CURRENT_TESTS")[2])
  assert len(listed) > 10
  for name in listed:
    assert (ROOT / name).exists(), name
    inside = name.removeprefix("tests/")
    assert inside.partition("/")[0] not in conftest.DISTRIBUTED
    assert inside not in conftest.DISTRIBUTED
