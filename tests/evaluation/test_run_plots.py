"""Plots of a work directory and of a sweep, by the figures that are saved."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from acme_stac.evaluation.figures import run as plots
from tests.support import workdirs

_CARTPOLE = "gymnasium:CartPole-v1"


@pytest.fixture
def saved(monkeypatch):
  """Collects figures by the name of their file; nothing is rendered."""
  figures = {}
  monkeypatch.setattr(
    Figure, "savefig", lambda self, path, **_: figures.update({path.name: self})
  )
  return figures


def test_plots_of_what_the_logs_have(tmp_path):
  (tmp_path / "logs").mkdir()
  assert plots.plot_run(tmp_path) == []
  (tmp_path / "logs" / "learner.csv").write_text(
    "learner_steps,environment_steps,episode_return,sigma_discount_head0,"
    "environment_steps_per_second,policy_age_mean,share_waiting_for_data\n"
    "1,10,nan,0.99,5,0,1\n2,20,3.0,0.98,5,1,0.5\n"
  )
  written = plots.plot_run(tmp_path)
  assert [path.name for path in written] == [
    "learning_curve.png", "metaparameters.png", "pipeline.png",
  ]
  assert all(path.stat().st_size > 1000 for path in written)


def test_a_run_is_drawn_with_its_metagradient_and_evaluation(tmp_path, saved):
  workdirs.make(
    tmp_path / "w3", _CARTPOLE, "stacx", 3, 100.0,
    sigmas={"sigma_discount_head0": 0.995},
  )
  log = tmp_path / "w3" / "logs" / "learner.csv"
  head, *rows = log.read_text().splitlines()
  names = "outer_advantage,gradient_cosine,meta_gradient_norm"
  log.write_text("\n".join(
    [f"{head},{names}", *[f"{row},0.1,0.2,0.3" for row in rows]]
  ))
  (log.parent / "evaluator.csv").write_text(
    "learner_steps,environment_steps,episode_return_mean,episode_return_std,"
    "episodes,greedy\n1,640,50.0,2.0,4,True\n"
  )
  assert len(plots.plot_run(tmp_path / "w3")) == 4
  (axes,) = saved["learning_curve.png"].axes
  assert axes.get_title() == "stacx on CartPole-v1"
  assert "evaluation (greedy), mean ± standard error" in (
    axes.get_legend_handles_labels()[1]
  )
  for name in ("metaparameters.png", "metagradient.png", "pipeline.png"):
    assert "stacx on CartPole-v1" in saved[name].get_suptitle()
  assert len(saved["metagradient.png"].axes) == 4


def test_the_pipeline_shows_how_long_actors_wait(tmp_path, saved):
  logs = workdirs.make(tmp_path, "catch", "stac", 0, 1.0) / "logs"
  plots.plot_run(tmp_path)
  titles = [axes.get_title() for axes in saved["pipeline.png"].axes]
  assert "actors waiting for the learner" not in titles
  head = (
    "actor_environment_steps,share_waiting_for_learner,share_blocked_by_queue\n"
  )
  # The second actor started again after half of its steps.
  (logs / "actor_0.csv").write_text(
    f"{head}16000,0.25,0.25\n32000,0.5,0.25\n"
  )
  (logs / "actor_1.csv").write_text(f"{head}100,0.5,0.0\n100,0.0,0.25\n")
  plots.plot_run(tmp_path)
  (panel,) = [
    axes for axes in saved["pipeline.png"].axes
    if axes.get_title() == "actors waiting for the learner"
  ]
  (line,) = panel.lines
  np.testing.assert_allclose(line.get_xdata(), [32_000, 64_000], rtol=0.01)
  np.testing.assert_allclose(line.get_ydata(), [0.5, 0.5])
  assert panel.get_ylim() == (0.0, 1.05)


def test_a_log_of_one_row_is_seen(tmp_path, saved):
  logs = workdirs.make(
    tmp_path / "a/3", "catch", "stac", 3, 1.0, share=0.0,
    sigmas={"sigma_discount_head0": 0.98, "sigma_alpha_head0": 0.9},
  ) / "logs"
  (logs / "learner.csv").write_text(
    "learner_steps,environment_steps,episode_return,sigma_discount_head0,"
    "sigma_alpha_head0,environment_steps_per_second,policy_age_mean\n"
    "0,0,0.5,0.99,0.99,100,0\n"
  )
  plots.plot_run(tmp_path / "a/3")
  plots.plot_sweep(["a/3"], tmp_path)
  assert set(saved) == {
    "learning_curve.png", "learning_curves.png", "metaparameters.png",
    "pipeline.png",
  }
  for figure in saved.values():
    figure.draw_without_rendering()
    for axes in figure.axes:
      (line,) = axes.lines
      assert line.get_marker() != "None" and line.get_markevery() is None
      assert axes.get_xlim()[0] == 0
      ticks = [x.get_text() for x in axes.get_xticklabels()]
      assert ticks and all(x.isdecimal() for x in ticks)


def test_a_run_without_an_episode_says_so(tmp_path, saved):
  workdirs.make(tmp_path, "catch", "stac", 3, float("nan"))
  plots.plot_run(tmp_path)
  (axes,) = saved["learning_curve.png"].axes
  assert [x.get_text() for x in axes.texts] == ["no episode has ended yet"]


def test_a_sweep_has_a_panel_for_each_group(tmp_path, saved):
  for run, returns in {"a/x": (1, 2), "a/y": (3, 4), "b/x": ("nan", 5)}.items():
    logs = tmp_path / run / "logs"
    logs.mkdir(parents=True)
    (logs / "learner.csv").write_text(
      "learner_steps,environment_steps,episode_return\n"
      f"1,10,{returns[0]}\n2,20,{returns[1]}\n"
    )
  path = plots.plot_sweep(["a/x", "a/y", "b/x", "b/not_yet"], tmp_path)
  assert path == tmp_path / "learning_curves.png"
  panels = {
    axes.get_title(): [list(line.get_ydata()) for line in axes.lines]
    for axes in saved[path.name].axes
  }
  assert panels["a"] == [[1, 2], [3, 4]]
  assert np.isnan(panels["b"][0][0]) and panels["b"][0][1] == 5
  assert plots.plot_sweep(["c"], tmp_path) is None


def test_a_sweep_is_titled_by_what_its_runs_have_in_common(tmp_path, saved):
  names = []
  for folder, agent in (("a", "stac"), ("b", "stac"), ("c", "impala")):
    for seed in range(2):
      names.append(f"{folder}/{seed}")
      workdirs.make(tmp_path / names[-1], "catch", agent, seed, 1.0)
  for agent in ("impala", "stac"):
    names.append(f"d/{agent}")
    workdirs.make(tmp_path / names[-1], "catch", agent, 0, 1.0)
  plots.plot_sweep(names, tmp_path)
  assert [x.get_title() for x in saved["learning_curves.png"].axes] == [
    "stac on catch (a)", "stac on catch (b)", "impala on catch", "catch",
  ]


def test_panels_of_one_task_compare_by_eye(tmp_path, saved):
  runs = {
    "a/0": ("catch", 1.0), "b/0": ("catch", 10.0),
    "c/x": (_CARTPOLE, 500.0),
  }
  for run, (task, final) in runs.items():
    workdirs.make(tmp_path / run, task, "stac", 0, final)
  plots.plot_sweep(runs, tmp_path)
  figure = saved["learning_curves.png"]
  low, high, other = [axes.get_ylim() for axes in figure.axes]
  assert low == high and low[1] == pytest.approx(10.0, rel=0.1)
  assert other[1] > 400
  (legend,) = figure.legends
  assert [x.get_text() for x in legend.get_texts()] == ["seed 0", "x"]


def test_small_changes_of_metaparameters_look_small(tmp_path, saved):
  workdirs.make(
    tmp_path, "catch", "stacx", 0, 1.0,
    sigmas={
      f"sigma_{name}_head{head}": 0.991
      for name in ("discount", "lambda_", "alpha") for head in range(2)
    },
  )
  plots.plot_run(tmp_path)
  gamma, *others = saved["metaparameters.png"].axes
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
