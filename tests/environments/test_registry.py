"""Environments that users bring."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from acme_stac import environments
from acme_stac.environments.catch import Catch

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def corridor(tmp_path, monkeypatch):
  """The how-to's environment, as its reader has it."""
  text = (ROOT / "docs" / "environments.md").read_text()
  (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
  (tmp_path / "corridor.py").write_text(block)
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path
  sys.modules.pop("corridor", None)


def test_by_name_and_as_a_factory(corridor):
  import corridor as module

  name = "python:corridor:Corridor"
  assert environments.option_types(name) == {"length": int}
  for one in (name, module.Corridor):
    environments.check(environments.make(one, seed=0, length=6))
    batch = environments.make_batched(one, 5, seed=0, length=6)
    assert batch.observation_spec().shape == (7,)
    starts = batch.reset().observation.argmax(-1)
    assert len(set(starts)) > 1
    for _ in range(6):
      step = batch.step(np.ones(5, np.int32))
      assert (step.reward == (step.step_type == 2)).all()


def test_it_trains(corridor):
  """The how-to's command, but shorter and in one process."""
  result = subprocess.run(
    [
      sys.executable, "-m", "programs.train",
      "--config=configs/small.py:python:corridor:Corridor",
      "--config.environment_options.length=6", "--launch=serial",
      "--config.agent=stac", "--config.num_environment_steps=6400",
      "--config.stac.torso_sizes=(16,)", "--config.stac.head_sizes=(16,)",
      f"--workdir={corridor / 'run'}",
    ],
    capture_output=True, text=True, cwd=ROOT, timeout=300,
    env={"PYTHONPATH": f"{ROOT}:{corridor}", "PATH": "/usr/bin:/bin",
         "HOME": str(corridor)},
  )
  assert result.returncode == 0, result.stderr
  assert "6,400/6,400 steps" in result.stdout


def test_batched_environments_step_themselves():
  batch = environments.make_batched(Catch, 3, seed=0, rows=6)
  assert isinstance(batch, Catch)
  assert batch.reset().observation.shape == (3, 6, 5)


def test_batch_of_another_size_than_asked_for_is_refused():
  class Larger(environments.Catch):
    def __init__(self, num_environments, seed):
      super().__init__(num_environments + 1, seed)

  with pytest.raises(ValueError, match="num_environments=2 .* is 3"):
    environments.make_batched(Larger, 2, seed=0)



@pytest.mark.parametrize(
  "name,message",
  [
    ("python:corridor:Corridr", "has no attribute 'Corridr'"),
    ("python:corridr:Corridor", "No module named 'corridr'"),
    ("python:corridor", "python:package.module:factory"),
    ("python:", "python:package.module:factory"),
    ("python:pathlib:PurePath", "PurePath"),
  ],
)
def test_bad_names(name, message, corridor):
  with pytest.raises(ValueError, match=message):
    environments.make(name, seed=0)


def test_not_an_environment():
  with pytest.raises(ValueError, match="must return a dm_env.Environment"):
    environments.make(lambda seed: 3, seed=0)


def test_options():
  assert environments.option_types("atari:pong")["protocol"] is str
  assert environments.option_types("control_pixels:cheetah/run") == {
    "height": int, "width": int, "camera_id": int, "action_repeat": int,
    "frame_stack": int,
  }
  rwrl = environments.option_types("rwrl:walker/walk/easy")
  assert rwrl["action_delay"] is int and rwrl["exact"] is bool
  assert rwrl["safety_constraints"] is tuple
  with pytest.raises(ValueError, match="Did you mean 'atari'"):
    environments.option_types("atar:pong")


def test_members_are_written_into_one_array():
  """No copies beyond the one into the batch; it is used again."""
  batch = environments.BatchOfEnvironments(
    [environments.make("catch", seed=s) for s in range(3)]
  )
  first = batch.reset().observation
  second = batch.step(np.zeros(3, np.int32)).observation
  assert first is second
