"""How the soak judges memory."""

import random

import pytest

from programs.benchmark import soak


def life(growth, jumps, node="learner", pid=1, number=200):
  rng = random.Random(0)
  return [
    soak.Sample(
      5.0 * i, node, pid,
      600.0 * (1.0 + growth * i / number) + rng.uniform(-jumps, jumps), 30,
    )
    for i in range(number)
  ]


@pytest.mark.parametrize("growth", [0.0, 0.1, 0.27])
@pytest.mark.parametrize("jumps", [0.0, 25.0])
def test_growth_is_told_from_jumps(growth, jumps):
  (found,) = soak.growth(life(growth, jumps))
  # The first minute does not count.
  first, last = (1.0 + growth * i / 200 for i in (13, 199))
  assert found["minutes"] == pytest.approx((199 - 13) * 5 / 60)
  assert found["memory_growth"] == pytest.approx(last / first - 1, abs=0.025)
  assert ("error" in found) == (growth > 0)


def test_the_longest_life_of_each_node_counts():
  samples = life(0.0, 0.0, pid=1) + life(0.5, 0.0, pid=2, number=50)
  samples += life(0.3, 0.0, node="actor/0")
  actor, learner = soak.growth(samples)
  assert (actor["node"], learner["node"]) == ("actor/0", "learner")
  assert learner["memory_growth"] == pytest.approx(0.0)
  assert "grew by 27%" in actor["error"]
  table = soak.table({"rows": [actor, learner]})
  assert table.count("\n") == 3
  drawing = soak.plot({
    "samples": [sample._asdict() for sample in samples], "event_seconds": [9.0],
  })
  assert [len(axes.lines) for axes in drawing.axes] == [3, 3]
