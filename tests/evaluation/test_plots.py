import os

import numpy as np
import pytest

from acme_stac.evaluation import plots
from tests.support import workdirs


def test_read_log_drops_what_was_repeated(tmp_path):
  path = tmp_path / "log.csv"
  path.write_text("step,x\n1,a\n2,2.5\n3,3.5\n2,20\n3,30\n4,40\n5")
  columns = plots.read_log(path, "step")
  np.testing.assert_array_equal(columns["step"], [1, 2, 3, 4])
  np.testing.assert_array_equal(columns["x"], [np.nan, 20, 30, 40])
  assert plots.read_log(tmp_path / "none.csv") == {}


def test_flags_are_numbers(tmp_path):
  path = tmp_path / "log.csv"
  path.write_text("truncated\nTrue\nFalse\n")
  np.testing.assert_array_equal(
    plots.read_log(path)["truncated"], [1.0, 0.0]
  )


def test_plots_what_there_is(tmp_path):
  logs = tmp_path / "logs"
  logs.mkdir()
  assert plots.plot_run(tmp_path) == []
  (logs / "learner.csv").write_text(
    "learner_steps,environment_steps,episode_return,sigma_discount_head0,"
    "environment_steps_per_second,policy_age_mean,share_waiting_for_data\n"
    "1,10,nan,0.99,5,0,1\n2,20,3.0,0.98,5,1,0.5\n"
  )
  written = plots.plot_run(tmp_path)
  assert [path.name for path in written] == [
    "learning_curve.png",
    "metaparameters.png",
    "pipeline.png",
  ]
  assert all(path.stat().st_size > 1000 for path in written)


def test_sweep_has_a_panel_for_each_group(tmp_path, monkeypatch):
  for run, returns in {"a/x": (1, 2), "a/y": (3, 4), "b/x": ("nan", 5)}.items():
    logs = tmp_path / run / "logs"
    logs.mkdir(parents=True)
    (logs / "learner.csv").write_text(
      "learner_steps,environment_steps,episode_return\n"
      f"1,10,{returns[0]}\n2,20,{returns[1]}\n"
    )
  drawn = []
  save = plots._save
  monkeypatch.setattr(
    plots, "_save", lambda figure, path: drawn.append(figure) or save(
      figure, path
    )
  )
  path = plots.plot_sweep(["a/x", "a/y", "b/x", "b/not_yet"], tmp_path)
  assert path == tmp_path / "learning_curves.png"
  assert path.stat().st_size > 1000
  panels = {
    axes.get_title(): [list(line.get_ydata()) for line in axes.lines]
    for axes in drawn[0].axes
  }
  assert panels["a"] == [[1, 2], [3, 4]]
  assert np.isnan(panels["b"][0][0]) and panels["b"][0][1] == 5
  assert plots.plot_sweep(["c"], tmp_path) is None


def test_rows_that_are_not_whole_are_left_out(tmp_path):
  log = tmp_path / "log.csv"
  log.write_text(
    "a,steps\n1,1\n2,\n3\n4,2,5\n5,x\n7,3\n8,4"
  )
  columns = plots.read_log(log, "steps")
  np.testing.assert_array_equal(columns["a"], [1, 7, 8])
  np.testing.assert_array_equal(columns["steps"], [1, 3, 4])


def drawn_of(monkeypatch):
  """Returns a dictionary that gets every figure by its file's name."""
  figures = {}
  save = plots._save

  def keep(figure, path):
    figures[path.name] = figure
    return save(figure, path)

  monkeypatch.setattr(plots, "_save", keep)
  return figures


def test_plots_of_a_run_are_titled_by_agent_and_task(tmp_path, monkeypatch):
  figures = drawn_of(monkeypatch)
  workdirs.make(
    tmp_path / "w3", "gymnasium:CartPole-v1", "stacx", 3, 100.0,
    sigmas={"sigma_discount_head0": 0.995},
  )
  plots.plot_run(tmp_path / "w3")
  (axes,) = figures["learning_curve.png"].axes
  assert axes.get_title() == "stacx on CartPole-v1"
  for name in ("metaparameters.png", "pipeline.png"):
    assert "stacx on CartPole-v1" in figures[name].get_suptitle()


def test_a_sweep_is_titled_by_what_its_runs_have_in_common(
  tmp_path, monkeypatch
):
  figures = drawn_of(monkeypatch)
  names = []
  for folder, agent in (("a", "stac"), ("b", "stac"), ("c", "impala")):
    for seed in range(2):
      names.append(f"{folder}/{seed}")
      workdirs.make(tmp_path / names[-1], "catch", agent, seed, 1.0)
  for agent in ("impala", "stac"):
    names.append(f"d/{agent}")
    workdirs.make(tmp_path / names[-1], "catch", agent, 0, 1.0)
  plots.plot_sweep(names, tmp_path)
  assert [x.get_title() for x in figures["learning_curves.png"].axes] == [
    "stac on catch (a)", "stac on catch (b)", "impala on catch", "catch",
  ]


def test_small_changes_of_metaparameters_look_small(tmp_path, monkeypatch):
  figures = drawn_of(monkeypatch)
  workdirs.make(
    tmp_path, "catch", "stacx", 0, 1.0,
    sigmas={
      f"sigma_{name}_head{head}": 0.991
      for name in ("discount", "lambda_", "alpha") for head in range(2)
    },
  )
  plots.plot_run(tmp_path)
  gamma, *others = figures["metaparameters.png"].axes
  for axes in others:
    low, high = axes.get_ylim()
    assert high - low >= 0.1
    assert axes.get_ylim() == others[0].get_ylim()
  # γ is drawn by its horizon, from 100 steps to 111, of at least 10 to 1,000.
  np.testing.assert_allclose(
    gamma.lines[0].get_ydata()[[0, -1]], [100.0, 111.0], rtol=0.01
  )
  assert gamma.get_yscale() == "log"
  assert gamma.get_ylim()[0] <= 10 and gamma.get_ylim()[1] >= 1000
  assert "horizon" in gamma.get_ylabel()


def test_logs_that_are_pipes_are_not_read(tmp_path):
  os.mkfifo(tmp_path / "log.csv")
  with pytest.raises(OSError, match="is not a regular file"):
    plots.read_log(tmp_path / "log.csv")
