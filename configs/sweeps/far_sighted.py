"""Metagradients that look further than one update, on MinAtar.

  python -m programs.sweep configs/sweeps/far_sighted.py \
    --workdir=runs/far_sighted --minutes=10
  python -m programs.report runs/far_sighted --output=report

The same command resumes, on any device, in slices of any length. Games, seeds
and budgets are those of configs/sweeps/minatar.py, whose settings are the right
start. Runs are named game/agent/seed, and game/field=value/agent/seed if they
start from a wrong value of one field.

Parts, as configs/sweeps/far_sighted.py:PART; give them one --workdir:
  right  every agent from the right start; the default.
  wrong  every agent from a fifth and from five times the entropy cost, the
         horizon 1 / (1 − γ) and the value cost.
  small  Breakout with 3 seeds of 1,000 updates, from the right start and from
         the wrong ones, for two cores; η's step size is ten times the preset's,
         so that metaparameters get somewhere.
  long   Breakout at the papers' number of updates, two seeds of four agents,
         the first of each before the second; two and a half hours of two cores.
  tasks  CartPole and control's swingup with the small settings, 3 seeds each,
         by the program of several processes.
"""

import acme_stac
from configs import sweeps
from configs.sweeps import minatar

_BOOTSTRAP = ["--config.agent=stacx_bootstrap"]
# Name -> flags of the agent.
_AGENTS = {
  "impala": ["--config.agent=impala"],
  "impala_aux": ["--config.agent=impala_aux"],
  "stacx": ["--config.agent=stacx"],
  "stacx_no_kl": ["--config.agent=stacx", "--config.stac.kl_cost=0"],
  "stacx_outer_critic": ["--config.agent=stacx_outer_critic"],
  "stacx_bootstrap_1": [*_BOOTSTRAP, "--config.stac.bootstrap_steps=1"],
  "stacx_bootstrap_4": [*_BOOTSTRAP, "--config.stac.bootstrap_steps=4"],
  "stacx_bootstrap_outer_critic": [
    "--config.agent=stacx_bootstrap_outer_critic"
  ],
  "stacx_double": [
    "--config.agent=stacx", "--config.stac.metaparameter_range=double"
  ],
}
_FACTORS = (0.2, 5.0)
_LONG = ("impala", "impala_aux", "stacx", "stacx_outer_critic")
# Environment -> steps.
_TASKS = {"gymnasium:CartPole-v1": 200_000, "control:cartpole/swingup": 100_000}

_Runs = dict[str, list[str]]


def _wrong_values(entropy_cost: float) -> dict[str, list[float]]:
  """Returns the wrong values of each field.

  Args:
    entropy_cost: the right one.
  """
  right = acme_stac.make_config("stacx", "minatar")
  return {
    "entropy_cost": [factor * entropy_cost for factor in _FACTORS],
    "discount": [1.0 - (1.0 - right.discount) / f for f in _FACTORS],
    "value_cost": [factor * right.value_cost for factor in _FACTORS],
  }


def _right() -> _Runs:
  return {
    f"{game}/{name}": minatar.flags(game, 16, *flags)
    for game in minatar.GAMES
    for name, flags in _AGENTS.items()
  }


def _wrong() -> _Runs:
  right = acme_stac.make_config("stacx", "minatar")
  return {
    f"{game}/{field}={value:.4g}/{name}": minatar.flags(
      game, 16, *flags, f"--config.stac.{field}={value:.4g}"
    )
    for field, values in _wrong_values(right.entropy_cost).items()
    for value in values
    for game in minatar.GAMES
    for name, flags in _AGENTS.items()
  }


def _small() -> _Runs:
  starts = {"": [], **{
    f"{field}={value:.4g}/": [f"--config.stac.{field}={value:.4g}"]
    for field, values in _wrong_values(minatar.FAST["entropy_cost"]).items()
    for value in values
  }}
  return {
    f"breakout/{start}{name}": minatar.fast_flags(
      "breakout", *flags, *changes, "--config.stac.meta_learning_rate=0.01"
    )
    for start, changes in starts.items()
    for name, flags in _AGENTS.items()
  }


def _long() -> _Runs:
  return {
    f"breakout/{name}/{seed}": minatar.flags(
      "breakout", 1, *_AGENTS[name], f"--config.seed={seed}",
      "--config.evaluation.episodes=0",
    )
    for seed in range(2)
    for name in _LONG
  }


def _tasks() -> _Runs:
  return {
    f"{environment.partition(':')[2]}/{agent}/{seed}": [
      f"--config=configs/small.py:{environment}",
      *_AGENTS[agent],
      f"--config.seed={seed}",
      f"--config.num_environment_steps={steps}",
    ]
    for environment, steps in _TASKS.items()
    for agent in (
      "stacx_outer_critic", "stacx_bootstrap_1", "stacx_bootstrap_outer_critic"
    )
    for seed in range(3)
  }


_PARTS = {
  "right": _right,
  "wrong": _wrong,
  "small": _small,
  "long": _long,
  "tasks": _tasks,
}


def get_runs(part: str = "right") -> _Runs:
  """Returns a part's runs.

  Raises:
    ValueError: if there is no such part.
  """
  return sweeps.choose(_PARTS, part)()
