import numpy as np

from acme_stac.evaluation import plots


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
