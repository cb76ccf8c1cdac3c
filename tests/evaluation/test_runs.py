import dataclasses
import json

import numpy as np
import pytest

from acme_stac.evaluation import runs
from tests.evaluation import workdirs


def test_a_work_directory_is_read(tmp_path):
  workdirs.make(
    tmp_path / "a", "catch", "stac", 3, 0.8, rate=200.0,
    sigmas={"sigma_discount_head0": 0.95},
  )
  (run,) = runs.find([tmp_path])
  assert (run.task, run.agent, run.seed, run.finished) == (
    "catch", "stac", 3, True
  )
  assert run.settings["num_heads"] == 1
  assert run.steps[-1] == 64_000
  # 64,000 steps at 200 a second, from the first row on, of 640.
  assert run.figures["training_seconds"] == pytest.approx(316.8)
  np.testing.assert_allclose(run.curves["seconds"], run.steps / 200.0 - 3.2)
  assert run.value_at("episode_return", 32_000, "environment_steps") == (
    pytest.approx(0.4)
  )
  assert run.value_at("episode_return", 156.8, "seconds") == pytest.approx(0.4)
  assert np.isnan(run.value_at("episode_return", 64_001, "environment_steps"))
  assert run.figures["final_return"] == pytest.approx(0.8)


def test_unfinished_and_empty_runs(tmp_path):
  workdirs.make(tmp_path / "a", "catch", "stac", 0, 0.8, share=0.5)
  workdirs.make(tmp_path / "b", "catch", "stac", 1, 0.8, share=0.0)
  half, empty = runs.find([tmp_path])
  assert not half.finished and half.steps[-1] == 32_000
  assert not empty.finished and not len(empty.steps)
  assert np.isnan(empty.value_at("episode_return", 1.0, "environment_steps"))


def test_what_is_exported_is_read_again(tmp_path):
  for seed in range(3):
    workdirs.make(
      tmp_path / "runs" / str(seed), "catch", "stac", seed, 0.1 * seed,
      rows=90, share=1.0 if seed else 0.3,
      sigmas={"sigma_alpha_head0": 0.9}, discount=0.99 if seed else 0.9,
    )
  workdirs.make(tmp_path / "runs" / "x", "catch", "impala", 0, 1.0, share=0.0)
  found = runs.find([tmp_path / "runs"])
  files = runs.export(found, tmp_path / "kept")
  assert all(path.parent == tmp_path / "kept" for path in files)
  again = runs.find([tmp_path / "kept"])
  assert [dataclasses.replace(run, figures={}, curves={}) for run in again] == [
    dataclasses.replace(run, figures={}, curves={}) for run in found
  ]
  for old, new in zip(found, again, strict=True):
    if not len(old.steps):
      continue
    assert len(new.steps) == min(len(old.steps), 40)
    assert new.steps[-1] == old.steps[-1]
    assert new.figures["final_return"] == pytest.approx(
      old.figures["final_return"]
    )
    at = 0.4 * old.steps[-1]
    for column in ("episode_return", "sigma_alpha_head0"):
      assert new.value_at(column, at, "environment_steps") == pytest.approx(
        old.value_at(column, at, "environment_steps"), rel=1e-3
      )


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda path: None, "There is no directory"),
    (lambda path: path.mkdir(), "has no run"),
    (
      lambda path: (path.mkdir(), (path / "config.json").write_text("{")),
      "no work directory that can be read",
    ),
    (
      lambda path: (
        path.mkdir(), (path / "config.json").write_text('{"agent": "stac"}')
      ),
      "no work directory that can be read: KeyError",
    ),
    (
      lambda path: (
        path.mkdir(), (path / "settings.json").write_text("[]"),
        (path / "runs.csv").write_text("run,name\n0,x\n"),
      ),
      "is not what a report keeps",
    ),
  ],
)
def test_what_is_no_run_is_said(tmp_path, make, message):
  make(tmp_path / "x")
  with pytest.raises(ValueError, match=message):
    runs.find([tmp_path / "x"])


def make_groups(tmp_path, described):
  for number, (task, agent, seed, settings) in enumerate(described):
    workdirs.make(
      tmp_path / str(number), task, agent, seed, 1.0, rows=2, **settings
    )
  return runs.Groups(runs.find([tmp_path]))


def test_what_most_runs_have_is_usual(tmp_path):
  groups = make_groups(tmp_path, [
    *[("catch", "stac", seed, {}) for seed in range(2)],
    *[("catch", "stac", seed, {"discount": 0.9}) for seed in range(2)],
    # A tie for STAC, which other agents of the task decide.
    ("catch", "impala", 0, {}),
    # On another task another value is the usual one.
    ("gymnasium:CartPole-v1", "stac", 7, {"discount": 0.9}),
    # A longer run of the same agent is no other agent.
    ("catch", "impala", 1, {"num_environment_steps": 640_000}),
  ])
  assert {
    (task, runs.label(agent, variation)): [run.seed for run in members]
    for (task, agent, variation), members in groups.items()
  } == {
    ("catch", "stac"): [0, 1],
    ("catch", "stac, discount=0.9"): [0, 1],
    ("catch", "impala"): [0, 1],
    ("gymnasium:CartPole-v1", "stac"): [7],
  }
  # As in the list of presets, whatever was found first.
  assert groups.agents == ["impala", "stac"]
  assert groups.perturbed() == {"discount": [0.9, 0.99]}
  assert groups.usual("catch", "stac", "discount") == 0.99
  assert groups.seeds == {"catch": [0, 1], "gymnasium:CartPole-v1": [7]}


def test_lists_can_be_varied(tmp_path):
  groups = make_groups(tmp_path, [
    *[("catch", "stac", seed, {}) for seed in range(2)],
    ("catch", "stac", 0, {"torso_sizes": (8,)}),
  ])
  (variation,) = [v for (_, _, v), _ in groups.items() if v]
  assert variation == (("torso_sizes", (8,)),)
  assert groups.perturbed() == {}
  assert json.dumps(groups.finished("catch", "stac", variation)[0].settings)
