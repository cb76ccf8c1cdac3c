"""MinAtar, written in JAX: --config=configs/minatar.py:<game>.

The papers' number of updates, 78,125 of 32 x 20 steps. Needs gymnax.
"""

import ml_collections

from acme_stac import checks
from programs.run import experiment

# Name -> gymnax's id.
_GAMES = {
  "asterix": "Asterix-MinAtar",
  "breakout": "Breakout-MinAtar",
  "freeway": "Freeway-MinAtar",
  "seaquest": "Seaquest-MinAtar",
  "space_invaders": "SpaceInvaders-MinAtar",
}


def get_config(game: str = "breakout") -> ml_collections.ConfigDict:
  """Returns a run of a game, for example "space_invaders".

  Raises:
    ValueError: for an unknown game, with near matches.
  """
  if game not in _GAMES:
    raise ValueError(checks.unknown("game of MinAtar", game, _GAMES))
  config = experiment.base_config("minatar", f"gymnax:{_GAMES[game]}")
  config.evaluation.every_steps = 500_000
  config.evaluation.episodes = 32
  return config
