"""gymnax's games of MinAtar: their configurations and their rules."""

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
