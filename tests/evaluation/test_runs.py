import json
import os
import shutil

import numpy as np
import pytest

from acme_stac.evaluation import logs, runs
from acme_stac.evaluation.report.comparison import Comparison, group_runs
from tests.support import workdirs


def test_a_work_directory_is_read(tmp_path):
  workdirs.make(
    tmp_path / "a", "catch", "stac", 3, 0.8, rate=200.0,
    sigmas={"sigma_discount_head0": 0.95},
  )
  (run,), _ = runs.find([tmp_path])
  assert (run.task, run.agent, run.seed, run.finished) == (
    "catch", "stac", 3, True
  )
  assert run.settings["num_heads"] == 1
  assert run.steps[-1] == 64_000
  # 64,000 steps at 200 a second, from the first row on, of 640.
  assert run.figures["training_seconds"] == pytest.approx(316.8)
  np.testing.assert_allclose(run.curves["seconds"], run.steps / 200.0 - 3.2)
  assert run.return_at(32_000) == pytest.approx(0.4)
  assert run.return_at(156.8, "seconds") == pytest.approx(0.4)
  assert np.isnan(run.return_at(64_001))
  assert run.figures["final_return"] == pytest.approx(0.8)


def test_unfinished_and_empty_runs(tmp_path):
  workdirs.make(tmp_path / "a", "catch", "stac", 0, 0.8, share=0.5)
  workdirs.make(tmp_path / "b", "catch", "stac", 1, 0.8, share=0.0)
  (half, empty), _ = runs.find([tmp_path])
  assert not half.finished and half.steps[-1] == 32_000
  assert not empty.finished and not len(empty.steps)
  assert np.isnan(empty.return_at(1.0))


def test_what_is_exported_is_read_again(tmp_path):
  for seed in range(3):
    workdirs.make(
      tmp_path / "runs" / str(seed), "catch", "stac", seed, 0.1 * seed,
      rows=90, share=1.0 if seed else 0.3,
      sigmas={"sigma_alpha_head0": 0.9}, discount=0.99 if seed else 0.9,
    )
  workdirs.make(tmp_path / "runs" / "x", "catch", "impala", 0, 1.0, share=0.0)
  found, _ = runs.find([tmp_path / "runs"])
  files = runs.export(found, tmp_path / "kept")
  assert all(path.parent == tmp_path / "kept" for path in files)
  again, _ = runs.find([tmp_path / "kept"])
  names = ("name", "task", "agent", "settings", "seed", "finished")
  for old, new in zip(found, again, strict=True):
    assert [getattr(new, x) for x in names] == [getattr(old, x) for x in names]
  for old, new in zip(found, again, strict=True):
    if not len(old.steps):
      continue
    assert len(new.steps) == min(len(old.steps), 40)
    assert new.steps[-1] == old.steps[-1]
    assert new.figures["final_return"] == pytest.approx(
      old.figures["final_return"]
    )
    for column in ("episode_return", "sigma_alpha_head0"):
      before, after = (
        logs.interpolate(
          run.curves, column, 0.4 * old.steps[-1], "environment_steps"
        )
        for run in (old, new)
      )
      assert after == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda path: None, "There is no directory"),
    (lambda path: path.mkdir(), "has no run"),
    (
      lambda path: (path.mkdir(), (path / "config.json").write_text("{")),
      "cannot be read as a run",
    ),
    (
      lambda path: (
        path.mkdir(), (path / "config.json").write_text('{"agent": "stac"}')
      ),
      "KeyError: 'config'",
    ),
    (
      lambda path: (
        path.mkdir(), (path / "settings.json").write_text("[]"),
        (path / "runs.csv").write_text("run,name\n0,x\n"),
      ),
      "cannot be read as a run",
    ),
  ],
)
def test_what_is_no_run_is_said(tmp_path, make, message):
  make(tmp_path / "x")
  with pytest.raises(ValueError, match=message):
    runs.find([tmp_path / "x"])


def compare(tmp_path, described):
  for number, (task, agent, seed, settings) in enumerate(described):
    workdirs.make(
      tmp_path / str(number), task, agent, seed, 1.0, rows=2, **settings
    )
  return Comparison(runs.find([tmp_path])[0])


def test_runs_side_by_side_have_a_log_of_the_sweep_above_them(tmp_path):
  for seed in range(2):
    workdirs.make(tmp_path / "pair" / str(seed), "catch", "stac", seed, 1.0)
  (tmp_path / "pair" / "sweep.log").write_text("Done.")
  found, problems = runs.find([tmp_path])
  assert [run.seed for run in found] == [0, 1]
  assert not problems


def test_what_cannot_be_read_is_left_out_and_said(tmp_path):
  workdirs.make(tmp_path / "good", "catch", "stac", 0, 1.0)
  bad = {
    "foreign": ("config.json", b'{"model_type": "bert"}'),
    "list": ("config.json", b"[1]"),
    "binary": ("config.json", b"\xff\xfe\x00"),
    "failed": ("sweep.log", b"Error: no such environment"),
    "kept": ("settings.json", b"[]"),
  }
  for name, (file, content) in bad.items():
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_bytes(content)
  (tmp_path / "kept" / "runs.csv").write_text("run,name\n0,x\n")
  workdirs.make(tmp_path / "log", "catch", "stac", 1, 1.0)
  (tmp_path / "log" / "logs" / "learner.csv").write_text("a,b\n1,2\n")
  found, problems = runs.find([tmp_path])
  assert [run.name for run in found] == [str(tmp_path / "good")]
  assert len(problems) == len(bad) + 1
  for name in (*bad, "log"):
    (problem,) = [text for text in problems if str(tmp_path / name) in text]
  assert "has not begun, or failed before" in "".join(problems)


def _set_config(directory, **values):
  path = directory / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _pipe(path):
  path.unlink()
  os.mkfifo(path)


def _set_log(directory, row=1, **values):
  """Changes a row of a log."""
  path = directory / "logs" / "learner.csv"
  head, *rows = [line.split(",") for line in path.read_text().splitlines()]
  for name, value in values.items():
    rows[row][head.index(name)] = value
  path.write_text("".join(",".join(line) + "\n" for line in [head, *rows]))


@pytest.mark.parametrize(("damage", "message"), [
  (lambda run: _set_config(run, config=None), "TypeError"),
  # Reading a pipe would wait for ever.
  (lambda run: _pipe(run / "config.json"), "is not a regular file"),
  (lambda run: _pipe(run / "logs" / "learner.csv"), "is not a regular file"),
  (lambda run: (run / "config.json").write_text('{"age'), "JSONDecodeError"),
  (
    lambda run: _set_log(run, environment_steps="nan"),
    "environment_steps must be finite and never fall",
  ),
  (
    lambda run: _set_log(run, environment_steps="-20480"),
    "environment_steps must be finite and never fall",
  ),
  # A rate of 0 over more than 0 steps.
  (
    lambda run: _set_log(run, environment_steps_per_second="0"),
    "seconds must be finite and never fall",
  ),
])
def test_a_damaged_run_is_left_out_and_named(tmp_path, damage, message):
  workdirs.make(tmp_path / "good", "catch", "stac", 0, 1.0)
  damage(workdirs.make(tmp_path / "bad", "catch", "stac", 1, 1.0, rows=3))
  (run,), (problem,) = runs.find([tmp_path])
  assert run.name == str(tmp_path / "good")
  assert str(tmp_path / "bad") in problem and message in problem


@pytest.mark.parametrize(("file", "change"), [
  ("curves.csv", lambda text: text[:300]),
  ("curves.csv", lambda text: text.replace("seconds", "minutes")),
  ("runs.csv", lambda text: text.replace("seed", "sed")),
  ("settings.json", lambda text: text[:5]),
])
def test_damaged_data_of_a_report_are_left_out_and_named(
  tmp_path, file, change
):
  for seed in range(2):
    workdirs.make(tmp_path / f"run{seed}", "catch", "stac", seed, 1.0)
  found, _ = runs.find([tmp_path])
  runs.export(found, tmp_path / "kept")
  for seed in range(2):
    (tmp_path / f"run{seed}" / "config.json").unlink()
  workdirs.make(tmp_path / "good", "catch", "stac", 3, 1.0)
  path = tmp_path / "kept" / file
  path.write_text(change(path.read_text()))
  (run,), (problem,) = runs.find([tmp_path])
  assert run.seed == 3
  assert f"{tmp_path / 'kept'} cannot be read as a run" in problem


def test_an_older_state_of_a_run_is_not_another_one(tmp_path):
  run = tmp_path / "run"
  workdirs.make(run, "catch", "stac", 0, 1.0, share=0.5)
  workdirs.make(tmp_path / "other", "catch", "stac", 0, 0.7, share=0.5)
  runs.export(runs.find([tmp_path])[0], tmp_path / "report" / "data")
  shutil.rmtree(run)
  workdirs.make(run, "catch", "stac", 0, 1.0)
  found, _ = runs.find([tmp_path])
  assert [(one.name, one.finished) for one in found] == [
    (str(tmp_path / "other"), False), (str(run), True)
  ]


def test_names_that_are_no_text(tmp_path):
  name = os.fsdecode(b"run\xff")
  workdirs.make(tmp_path / name, "catch", "stac", 0, 1.0)
  (run,), _ = runs.find([tmp_path])
  assert run.name == str(tmp_path / "run\\xff")


def test_a_run_is_found_once_and_through_links(tmp_path, monkeypatch):
  workdirs.make(tmp_path / "a", "catch", "stac", 0, 1.0)
  workdirs.make(tmp_path / "elsewhere" / "b", "catch", "stac", 1, 0.5)
  (tmp_path / "all").mkdir()
  (tmp_path / "all" / "link").symlink_to(tmp_path / "elsewhere")
  # One that leads back does not lead round for ever.
  (tmp_path / "all" / "round").symlink_to(tmp_path / "all")
  assert [run.seed for run in runs.find([tmp_path / "all"])[0]] == [1]
  monkeypatch.chdir(tmp_path)
  found, _ = runs.find(["a", tmp_path / "a", "elsewhere/../a", "all"])
  runs.export(found, tmp_path / "kept")
  again, _ = runs.find(["kept", "a", "all"])
  assert sorted(run.seed for run in again) == [0, 1]
  # Data of two machines may have the same names.
  workdirs.make(tmp_path / "other" / "a", "catch", "stac", 0, 0.7)
  monkeypatch.chdir(tmp_path / "other")
  runs.export(runs.find(["a"])[0], tmp_path / "other" / "kept")
  assert len(runs.find([tmp_path / "kept", "kept"])[0]) == 3


def test_mean_return_up_to_a_step(tmp_path):
  workdirs.make(tmp_path / "a", "catch", "stac", 0, 1.0, rows=100)
  (run,), _ = runs.find([tmp_path])
  # A line from 0 to 1: its mean up to x is x / 2, but for the first row.
  assert run.mean_return(64_000) == pytest.approx(0.505, abs=1e-3)
  assert run.mean_return(16_000) == pytest.approx(0.13, abs=1e-3)


def test_options_of_environments_are_those_of_the_task(tmp_path):
  """Runs of another protocol are a variation, whoever's all of them are."""
  for seed in range(2):
    workdirs.make(tmp_path / f"i{seed}", "atari:pong", "impala", seed, 1.0)
    workdirs.make(
      tmp_path / f"s{seed}", "atari:pong", "stacx", seed, 1.0,
      options={"protocol": "machado", "batch_size": "large"} if seed else {},
    )
  (group,) = [x for x in group_runs(runs.find([tmp_path])[0]) if x.variation]
  assert (group.agent, dict(group.variation)) == ("stacx", {
    "environment_options.protocol": "machado",
    "environment_options.batch_size": "large",
  })
  assert group.title == "atari:pong, stacx, batch_size=large, protocol=machado"


def test_a_grid_without_its_middle_has_usual_settings(tmp_path):
  compared = compare(tmp_path, [
    ("catch", "stac", 0, {"discount": 0.9}),
    ("catch", "stac", 0, {"value_cost": 0.1}),
    ("catch", "stac", 0, {"discount": 0.9, "entropy_cost": 0.5}),
    ("catch", "stac", 1, {"value_cost": 0.1, "entropy_cost": 0.5}),
  ])
  assert compared.agents == ["stac"]


def test_what_most_runs_have_is_usual(tmp_path):
  compared = compare(tmp_path, [
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
    (group.task, group.label): [run.seed for run in group.runs]
    for group in compared.groups
  } == {
    ("catch", "stac"): [0, 1],
    ("catch", "stac, discount=0.9"): [0, 1],
    ("catch", "impala"): [0, 1],
    ("gymnasium:CartPole-v1", "stac"): [7],
  }
  # As in the list of presets, whatever was found first.
  assert compared.agents == ["impala", "stac"]
  assert compared.perturbed() == {"discount": [0.9, 0.99]}
  assert compared.group("catch", "stac").usual["discount"] == 0.99
  assert compared.tasks == ["catch", "gymnasium:CartPole-v1"]


def test_of_equally_frequent_values_the_shortest_path_has_the_usual(tmp_path):
  workdirs.make(tmp_path / "catch/stac/0", "catch", "stac", 0, 1.0)
  for value in (0.9, 0.95):
    workdirs.make(
      tmp_path / f"catch/discount={value}/stac/0", "catch", "stac", 0, 1.0,
      discount=value,
    )
  groups = group_runs(runs.find([tmp_path])[0])
  assert [group.label for group in groups] == [
    "stac", "stac, discount=0.9", "stac, discount=0.95"
  ]


def test_lists_can_be_varied(tmp_path):
  compared = compare(tmp_path, [
    *[("catch", "stac", seed, {}) for seed in range(2)],
    ("catch", "stac", 0, {"torso_sizes": (8,), "embedding_per_head": True}),
    ("catch", "stac", 1, {"embedding_per_head": True}),
    ("catch", "stac", 0, {"options": {"sizes": [[1], {"a": [2]}]}}),
  ])
  _, nested, group = [x for x in compared.groups if x.variation]
  assert dict(group.variation) == {
    "embedding_per_head": True, "torso_sizes": (8,)
  }
  assert dict(nested.variation) == {
    "environment_options.sizes": ((1,), (("a", (2,)),))
  }
  # A truth value is no grid either.
  assert compared.perturbed() == {}
