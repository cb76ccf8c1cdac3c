"""What figures write beside their axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from acme_stac.evaluation import drawing, figures, runs
from acme_stac.presets import AGENTS
from tests.support import workdirs


def test_initial_metaparameters_are_said_by_what_they_mean():
  """Of η₀ = 0.9 the value is σ(0.9), but 0.9 where the range is clipped."""
  name = "metaparameter_init"
  assert figures.describe_setting(name, 4.6, {"sigmoid"}) == "4.6\n(σ = 0.990)"
  assert figures.describe_setting(name, 0.9, {"clip"}) == "0.9"
  assert figures.describe_setting("discount", 0.99, {"sigmoid"}) == "0.99"


def test_an_agent_looks_the_same_in_every_figure_and_unlike_all_others():
  looks = {
    (style["color"], style["marker"])
    for style in map(drawing.style, AGENTS)
  }
  assert len(looks) == len(AGENTS)
  # The four of the papers differ by their colour alone.
  four = [drawing.style(a)["color"] for a in list(AGENTS)[:4]]
  assert len(set(four)) == 4
  names = [f"stac, discount=0.{x}" for x in range(30)]
  assert len({
    (style["color"], style["marker"])
    for style in (drawing.style(name, names) for name in names)
  }) == 30
  for agents in ([], ["stacx", "impala"], names):
    assert drawing.style("stac", agents) == drawing.style("stac")


@pytest.fixture
def curves(tmp_path) -> Figure:
  for seed in range(2):
    for agent in ("impala", "stac", "stacx"):
      for task in ("catch", "l" * 300):
        workdirs.make(
          tmp_path / f"{task[:5]}{agent}{seed}", task, agent, seed, 1.0
        )
  found, _ = runs.find([tmp_path])
  groups = runs.Groups(found)
  return figures.learning_curves({
    task: {agent: groups.runs(task, agent) for agent in groups.agents}
    for task in groups.tasks
  })


def test_legends_cover_no_panel_and_all_text_is_inside(curves):
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
    drawing.narrow(curves)
    assert curves.get_figwidth() < 4
  assert len({axes.get_position().y0 for axes in curves.axes}) == 2


def test_tasks_are_titled_with_the_number_of_their_seeds(curves):
  assert "catch, 2 seeds" in [axes.get_title() for axes in curves.axes]
