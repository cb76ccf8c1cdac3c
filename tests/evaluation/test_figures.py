"""Styles and layout of figures."""

import io

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from acme_stac.evaluation import runs
from acme_stac.evaluation.figures import groups as figures
from acme_stac.evaluation.figures import styles
from acme_stac.evaluation.report.comparison import Comparison
from acme_stac.evaluation.statistics import Estimate
from acme_stac.presets import AGENTS
from tests.support import workdirs


def test_an_agent_looks_the_same_in_every_figure_and_unlike_all_others():
  looks = {(x["color"], x["marker"]) for x in map(styles.style, AGENTS)}
  assert len(looks) == len(AGENTS)
  # The four of the papers differ by their colour alone.
  four = [styles.style(a)["color"] for a in list(AGENTS)[:4]]
  assert len(set(four)) == 4
  names = [f"stac, discount=0.{x}" for x in range(30)]
  assert len({
    (style["color"], style["marker"])
    for style in (styles.style(name, names) for name in names)
  }) == 30
  for agents in ([], ["stacx", "impala"], names):
    assert styles.style("stac", agents) == styles.style("stac")


@pytest.fixture
def curves(tmp_path) -> Figure:
  for seed in range(2):
    for agent in ("impala", "stac", "stacx"):
      for task in ("catch", "l" * 300):
        workdirs.make(
          tmp_path / f"{task[:5]}{agent}{seed}", task, agent, seed, 1.0
        )
  found, _ = runs.find([tmp_path])
  compared = Comparison(found)
  return figures.learning_curves({
    task: {x: compared.group(task, x).runs for x in compared.agents}
    for task in compared.tasks
  })


def test_legends_cover_no_panel_and_all_text_is_inside(curves):
  assert "catch, 2 seeds" in [axes.get_title() for axes in curves.axes]
  for _ in range(2):
    curves.draw_without_rendering()
    (legend,) = curves.legends
    size = np.array([curves.bbox.width, curves.bbox.height])
    for axes in curves.axes:
      assert not legend.get_window_extent().overlaps(axes.get_window_extent())
      box = axes.get_tightbbox()
      assert (box.min > -1).all() and (box.max < size + 1).all()
      assert axes.get_window_extent().width > 0.5 * size[0] / 2
    # And the same on a phone.
    styles.narrow(curves)
    assert curves.get_figwidth() < 4
  assert len({axes.get_position().y0 for axes in curves.axes}) == 2


def test_a_figure_is_the_same_each_time(tmp_path):
  scores = {"stac": np.array([[0.1], [0.9]]), "stacx": np.array([[0.5], [1.0]])}
  pictures = []
  for seed in range(2):
    np.random.seed(seed)
    figures.profiles(scores).savefig(tmp_path / f"{seed}.png")
    pictures.append((tmp_path / f"{seed}.png").read_bytes())
  assert pictures[0] == pictures[1]


def drawn_lengths(figure: Figure) -> list[float]:
  """Returns the lengths of a figure's bars as drawn, in pixels."""
  figure.draw_without_rendering()
  return [
    bar.get_window_extent().width for axes in figure.axes
    for bar in axes.patches
  ]


def test_improvements_are_drawn_as_long_as_they_are():
  values = {"a": -60.0, "b": -42.0, "c": -18.0, "d": 150.0}
  figure = figures.relative_improvement({
    "stac": {task: Estimate(x, x - 5, x + 5) for task, x in values.items()}
  }, "impala")
  lengths = drawn_lengths(figure)
  np.testing.assert_allclose(
    np.divide(lengths, lengths[0]), [1.0, 0.7, 0.3, 2.5], rtol=0.01
  )
  assert [text.get_text() for text in figure.axes[0].texts] == [
    "-60", "-42", "-18", "+150",
  ]


@pytest.mark.parametrize(("highest", "expected"), [
  (350.0, ["−50", "0", "50", "100", "300"]),
  (2e6, ["0", "100", "1k", "10k", "100k", "1M"]),
])
def test_an_axis_of_large_improvements_shows_its_scale(highest, expected):
  figure = figures.relative_improvement({
    "stac": {
      "a": Estimate(-60.0, -65.0, -55.0), "b": Estimate(-18.0, -20.0, -16.0)
    },
    "stacx": {"a": Estimate(highest, highest / 2, 1.1 * highest)},
  }, "impala")
  worst, bad, _ = drawn_lengths(figure)
  for axes in figure.axes:
    assert [x.get_text() for x in axes.get_xticklabels()] == expected
  # Losses, which are mostly of less than 100%, remain comparable.
  assert worst == pytest.approx(60 / 18 * bad, rel=0.01)


def test_intervals_stand_out_from_black_bars_and_missing_bars_are_marked():
  found = {
    ("catch", value, agent): Estimate(10.0, 8.0, 12.0)
    for value in (0.9, 0.99) for agent in ("impala", "stacx_outer_critic")
  }
  del found["catch", 0.99, "impala"]
  figure = figures.robustness(found, "discount", str)
  (axes,) = figure.axes
  assert len(axes.patches) == 3
  assert [(x.get_text(), x.get_position()[0]) for x in axes.texts] == [
    ("–", pytest.approx(0.8)),
  ]
  # Inside the black bar, a row of pixels has the white outline of the line.
  black = next(
    bar for bar in axes.patches if bar.get_facecolor()[:3] == (0.0, 0.0, 0.0)
  )
  black.set_hatch("")
  picture = io.BytesIO()
  styles.save(figure, picture, dpi=100)
  picture.seek(0)
  pixels = image.imread(picture)[..., :3]
  box = black.get_window_extent()
  x = round((box.x0 + box.x1) / 2)
  y = len(pixels) - round(axes.transData.transform((0.0, 9.0))[1])
  assert pixels[y, x - 5 : x + 5].max() > 0.8
  assert pixels[y, x - 15 : x - 5].max() < 0.2


def test_a_legend_has_all_that_tells_runs_apart():
  names = [
    f"stacx, discount=0.9, {varied}, learning_rate=0.001, kl_cost=0.25"
    for varied in ("entropy_cost=0.01", "entropy_cost=0.02")
  ]
  figure, (axes,) = styles.panels(1)
  for name in names:
    axes.plot([0, 1], label=name)
  styles.legend(figure)
  for _ in range(2):
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert [text.replace("\n", " ") for text in shown] == names
    figure.draw_without_rendering()
    assert axes.get_window_extent().height > 100
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
    styles.narrow(figure)
