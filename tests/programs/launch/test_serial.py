"""Runs of one thread."""

import subprocess
import sys

import numpy as np
import pytest

from acme_stac import checkpointing
from tests.support import runs


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_ends_as_one_that_was_not(tmp_path):
  arguments = (
    "--launch=serial",
    "--num_actors=2",
    "--config.agent=metagradient_impala",
    "--config.num_environment_steps=35840",
    "--config.checkpoint_every_updates=30",
    "--config.stac.learning_rate=1e-2",
    *runs.SMALL,
    "--config.evaluation.episodes=0",
  )
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  with runs.Running(killed, *arguments) as running:
    # It dies some updates after the checkpoint.
    running.wait_for(lambda: runs.learner_steps(killed) > 30)
  saved = checkpointing.list_checkpoints(killed / "checkpoints")
  assert [path.name for path in saved] == ["checkpoint_000000030.npz"]
  with runs.Running(whole, *arguments) as running:
    resumed = runs.run(killed, *arguments)
    assert running.end() == 0, running.text
  assert resumed.returncode == 0, resumed.stderr
  assert "Resuming after 30 updates" in resumed.stdout
  first, second = runs.states(whole), runs.states(killed)
  assert first[".step"] == 56
  assert first.keys() == second.keys()
  for name, array in first.items():
    np.testing.assert_array_equal(array, second[name])


BLOCKED = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in (
      "acme", "courier", "launchpad", "reverb", "tensorflow"
    ):
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
from programs.launch import colocated
from programs import train
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_of_one_process_needs_no_package_of_the_distributed_layer(
  tmp_path,
):
  _, _, _, *arguments = runs.command(
    tmp_path,
    "--launch=serial",
    "--config.num_environment_steps=3200",
    *runs.SMALL,
  )
  result = subprocess.run(
    [sys.executable, "-c", BLOCKED, *arguments],
    capture_output=True, text=True, env=runs.environment(), timeout=300,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert "Done." in result.stdout
  assert runs.rows(tmp_path / "logs" / "evaluator.csv")
  assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.slow
def test_a_run_is_on_policy(tmp_path, quick_compilation):
  """Both trajectories of an A2C update are made by the parameters before it."""
  assert runs.train(
    tmp_path,
    "--launch=serial",
    "--config.agent=a2c_meta_gamma",
    "--config.stac.batch_size=4",
    "--config.num_environment_steps=2400",
    "--config.evaluation.episodes=0",
    "--config.log_every_seconds=0.001",
  ) == 0
  learner = runs.rows(tmp_path / "logs" / "learner.csv")
  assert len(learner) > 5
  for row in learner:
    assert float(row["policy_age_max"]) == 0.0
    assert abs(float(row["importance_weight_max"]) - 1.0) < 1e-4
    assert abs(float(row["importance_weight_mean"]) - 1.0) < 1e-4


@pytest.mark.slow
def test_episodes_that_never_end_are_cut_off_in_evaluations(
  tmp_path, quick_compilation, capsys
):
  arguments = (
    "--launch=serial",
    "--config.agent=impala",
    "--config.num_environment_steps=3200",
    *runs.SMALL,
    "--config.evaluation.max_episode_steps=20",
  )
  config = "configs/small.py:python:tests.support.faulty:Endless"
  assert runs.train(tmp_path, *arguments, config=config) == 0
  assert "(4 of 4 cut off)" in capsys.readouterr().out
  evaluations = runs.rows(tmp_path / "logs" / "evaluator.csv")
  assert float(evaluations[-1]["environment_steps"]) == 3200
  for row in evaluations:
    assert float(row["episodes_cut_off"]) == 4
    assert float(row["episode_length_mean"]) == 20
  # A terminal that is gone does not matter.
  with open("/dev/full", "w") as full:
    again = subprocess.run(
      runs.command(tmp_path, *arguments, config=config),
      stdout=full, stderr=full, env=runs.environment(), timeout=300,
      check=False,
    )
  assert again.returncode == 0
