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
