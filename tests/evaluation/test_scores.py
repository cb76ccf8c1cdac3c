import numpy as np
import pytest

from acme_stac.evaluation import scores


def test_human_normalised_score():
  """Pong: random play −20.7, a human 14.6."""
  assert scores.human_normalised_score("pong", 14.6) == pytest.approx(1.0)
  assert scores.human_normalised_score("pong", -20.7) == pytest.approx(0.0)
  # Breakout: 1.7 and 30.5.
  assert scores.human_normalised_score("breakout", 59.3) == pytest.approx(2.0)
  # In Double Dunk both are negative.
  assert scores.human_normalised_score("double_dunk", -16.4) == pytest.approx(1)
  with pytest.raises(ValueError, match="Did you mean 'pong'"):
    scores.human_normalised_score("pongg", 1.0)


def test_the_benchmark():
  assert len(scores.atari_57()) == len(set(scores.atari_57())) == 57


@pytest.mark.parametrize(
  ("task", "value", "score"),
  [
    ("atari:pong", 14.6, 1.0),
    ("atari:MsPacman", 400.0, (400.0 - 307.3) / (6951.6 - 307.3)),
    ("control:cheetah/run", 250.0, 0.25),
    ("rwrl:walker/walk/easy", 500.0, 0.5),
    ("playground:CheetahRun", 250.0, 0.25),
    ("catch", 0.0, 0.5),
    ("gymnasium:CartPole-v1", 475.0, 0.95),
  ],
)
def test_scores_share_a_scale(task, value, score):
  scale = scores.scale_of(task)
  assert scale.normalised(value) == pytest.approx(score)
  np.testing.assert_allclose(
    scale.normalised(np.array([value, value])), score
  )
  assert scale.meaning


@pytest.mark.parametrize("task", ["atari:adventure", "gymnasium:Pendulum-v1"])
def test_what_has_no_scale(task):
  assert scores.scale_of(task) is None
  assert scores.game_of(task) is None


def test_minatar_is_relative_to_random_play_and_an_agent():
  task = "gymnax:Breakout-MinAtar"
  scale = scores.relative_scale(task, "impala", mean=10.4)
  assert scale.normalised(0.4) == pytest.approx(0.0)
  assert scale.normalised(5.4) == pytest.approx(0.5)
  assert "impala" in scale.meaning
  # An agent that may be no better than random play is no unit.
  assert scores.relative_scale(task, "impala", mean=0.5, low=0.3) is None
  assert scores.relative_scale(task, "impala", mean=float("nan")) is None
  assert scores.relative_scale("catch", "impala", mean=0.5) is None
