"""gymnax's games of MinAtar: their configurations and their rules."""

import numpy as np
import pytest

from configs import minatar
from programs.run import validation

gymnax = pytest.importorskip("gymnax")


@pytest.mark.parametrize(
  "game", ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]
)
def test_a_game_has_a_configuration(game):
  config = minatar.get_config(game)
  family, _, level = config.environment.partition(":")
  assert family == "gymnax" and level in gymnax.registered_envs
  name = level.removesuffix("-MinAtar").lower()
  assert name == game.replace("_", "")


def test_a_run_has_the_papers_number_of_updates(tmp_path):
  run = validation.make_experiment(minatar.get_config(), 1, str(tmp_path))
  agent = run.config
  steps_of_update = agent.batch_size * agent.trajectory_length
  assert agent.num_environment_steps == 78_125 * steps_of_update


def test_other_games_are_refused():
  with pytest.raises(ValueError, match="'breakot'. Did you mean 'breakout'"):
    minatar.get_config("breakot")


@pytest.mark.parametrize(
  "game", ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]
)
def test_a_game_has_the_rules_of_the_original(game, quick_compilation):
  """Equal states and actions lead to equal boards, rewards and ends."""
  pytest.importorskip("minatar")
  from tests.support import minatar_rules

  original = minatar_rules.make_original(game)
  steps = minatar_rules.play(game, num_games=8, length=150)
  assert sum(step.reward for step in steps) > 0
  for step in steps:
    board, reward, done = minatar_rules.replay(original, step)
    assert (step.reward, step.done) == (reward, done)
    wanted = step.board.astype(bool)
    if game == "seaquest" and done:
      # gymnax fills the gauge of oxygen before it looks for divers.
      gauge = 7
      board, wanted = (np.delete(x, gauge, -1) for x in (board, wanted))
    np.testing.assert_array_equal(board, wanted)
