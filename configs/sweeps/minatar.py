"""Self-tuning on MinAtar at the papers' number of updates, 78,125.

  python -m programs.sweep configs/sweeps/minatar.py --workdir=runs/minatar \
    --minutes=10
  python -m programs.report runs/minatar --output=report

The same command resumes, on any device, in slices of any length. Seeds train
side by side in one program, in directories game/agent/seed.

Parts, as configs/sweeps/minatar.py:PART; give each a --workdir, or give
ablations that of the study, whose report then has both:
  study      five games, four agents, 16 seeds; the default.
  small      the same with 3 seeds of 1,000 updates, for two cores, and settings
             that learn in so few.
  medium     Breakout with 5 seeds of 5,000 updates and the preset's settings,
             for two cores.
  search     IMPALA's step size, entropy cost and RMSProp's ε, every
             combination. The best over games belongs in the preset "minatar",
             from which all the parts take their settings.
  small_search  the same for `small`, one seed of each; the best is its FAST.
  ablations  what is self-tuned; the KL cost g_kl; η's step size; a wrong γ and
             a wrong g_v, in IMPALA's loss and in the outer loss of STACX.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

from configs import sweeps

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
_AGENTS = ("impala", "impala_aux", "stac", "stacx")
_LADDER = tuple(
  f"{agent}_{names}"
  for agent in ("stac", "stacx")
  for names in ("gamma", "gamma_lambda", "no_alpha")
)
# Table 3 has 6e-4 and 0.1, and an entropy cost of 0.01.
_SEARCHED = {
  "learning_rate": (6e-4, 1.2e-3, 2.4e-3, 4.8e-3),
  "entropy_cost": (0.01, 0.02, 0.05, 0.1),
  "rmsprop_eps": (0.1, 0.01, 0.001),
}
_SEARCHED_FAST = {
  "learning_rate": (4.8e-3, 9.6e-3),
  "entropy_cost": (0.003, 0.01),
  "rmsprop_eps": (0.001, 1e-4),
}
# The best tried for IMPALA in three games of four (docs/data/results.md).
FAST = {"learning_rate": 4.8e-3, "entropy_cost": 0.01, "rmsprop_eps": 0.001}
_FAST_STEPS = 640_000
# Name -> agents and values other than the preset's. Those of γ and g_v are the
# papers' wrong ones, of an outer 0.995 and 0.25.
_VARIED = {
  "kl_cost": (("stac", "stacx"), (0.0,)),
  "meta_learning_rate": (("stac", "stacx"), (1e-4, 1e-2)),
  "discount": (("impala", "stacx"), (0.99, 0.992, 0.997, 0.999)),
  "value_cost": (("impala", "stacx"), (0.15, 0.2, 0.3, 0.35)),
}

_Runs = dict[str, list[str]]


def flags(game: str, seeds: int, *more: str) -> list[str]:
  """Returns the flags of runs side by side at the whole budget."""
  return [
    f"--config=configs/minatar.py:{game}",
    "--launch=on_device",
    f"--seeds={seeds}",
    *more,
  ]


def fast_flags(game: str, *more: str) -> list[str]:
  """Returns the flags of three seeds of 1,000 updates, for two cores."""
  return flags(
    game, 3,
    *[f"--config.stac.{name}={value}" for name, value in FAST.items()],
    *_budget(_FAST_STEPS),
    *more,
  )


def _budget(steps: int) -> tuple[str, str]:
  return (
    f"--config.num_environment_steps={steps}", "--config.evaluation.episodes=0"
  )


def _agent(name: str) -> str:
  return f"--config.agent={name}"


def _vary(name: str, values: Sequence[float]) -> str:
  return f"--vary={name}={','.join(map(repr, values))}"


def _study() -> _Runs:
  return {
    f"{game}/{agent}": flags(game, 16, _agent(agent))
    for game in GAMES
    for agent in _AGENTS
  }


def _small() -> _Runs:
  return {
    f"{game}/{agent}": fast_flags(game, _agent(agent))
    for game in GAMES
    for agent in _AGENTS
  }


def _medium() -> _Runs:
  return {
    f"breakout/{agent}": flags(
      "breakout", 5, _agent(agent), *_budget(3_200_000)
    )
    for agent in ("stacx", "impala", "impala_aux", "stac")
  }


def _search(
  seeds: int, searched: Mapping[str, Sequence[float]], steps: int
) -> _Runs:
  return {
    f"{game}/impala": flags(
      game, seeds, _agent("impala"),
      *[_vary(name, values) for name, values in searched.items()],
      *_budget(steps),
    )
    for game in GAMES
  }


def _ablations() -> _Runs:
  runs = {}
  for game in GAMES:
    for agent in _LADDER:
      runs[f"{game}/{agent}"] = flags(game, 16, _agent(agent))
    for name, (agents, values) in _VARIED.items():
      for agent in agents:
        runs[f"{game}/{name}/{agent}"] = flags(
          game, 8, _agent(agent), _vary(name, values)
        )
  return runs


_PARTS: Mapping[str, Callable[[], _Runs]] = {
  "study": _study,
  "small": _small,
  "medium": _medium,
  "search": functools.partial(_search, 2, _SEARCHED, 10_000_000),
  "small_search": functools.partial(_search, 1, _SEARCHED_FAST, _FAST_STEPS),
  "ablations": _ablations,
}


def get_runs(part: str = "study") -> _Runs:
  """Returns a part's runs; every agent of a game before the next game.

  Raises:
    ValueError: if there is no such part.
  """
  return sweeps.choose(_PARTS, part)()
