"""The study of docs/results.md: the effect of self-tuning on small tasks.

  python -m programs.sweep configs/sweeps/study.py:agents --workdir=runs/study

Parts, all by default: agents (the four agents and the ablation ladder),
discount and value_cost (the robustness of section 4.3), init (that of Fig.
4(c)), split (α_ρ and α_c apart, Fig. 5(b)), scale (why heads slow learning),
control and atari (the expensive tasks), heads (what prevents heads from
diverging in control). Runs are named task/variant/agent/seed.
"""

import math
from collections.abc import Sequence

from configs import sweeps

# Environment steps, and the right g_v of the small configuration.
_CHEAP = {"gymnasium:CartPole-v1": (250_000, 1.0), "catch": (100_000, 0.25)}
_CONTROL = {
  "control:cartpole/swingup": 250_000,
  "control:cheetah/run": 250_000,
  "rwrl:cartpole/swingup/easy": 250_000,
  "rwrl:walker/walk/easy": 250_000,
}
# Frames.
_ATARI = {"atari:krull": 800_000}
_AGENTS = ("impala", "impala_aux", "stac", "stacx")
_LADDER = tuple(
  f"{agent}_{names}"
  for agent in ("stac", "stacx")
  for names in ("gamma", "gamma_lambda", "no_alpha")
)
# Wrong values: those of γ and of σ(η₀) in the paper's Fig. 4; those of g_v
# relative to the right one. The right ones (0.99; 1) are in the part "agents".
_DISCOUNTS = (0.992, 0.995, 0.997, 0.999)
_VALUE_COSTS = (0.6, 0.8, 1.2, 1.4)

_Runs = dict[str, list[str]]


def _name(environment: str) -> str:
  return environment.replace("gymnasium:", "").replace(":", "/")


def _flags(
  environment: str, agent: str, seed: int, steps: int, *flags: str
) -> list[str]:
  return [
    f"--config=configs/small.py:{environment}",
    f"--config.agent={agent}",
    f"--config.seed={seed}",
    f"--config.num_environment_steps={steps}",
    *flags,
    "--launch=serial",
  ]


# A single process alternates acting and learning, and would always act with the
# newest parameters otherwise.
_AGE = "--config.stac.variable_update_period=4"
_NEVER = "--config.evaluation.every_steps=100000000"


def _cheap(environment: str, agent: str, seed: int, *flags: str) -> list[str]:
  """Returns the flags of a run of a minute."""
  return _flags(
    environment, agent, seed, _CHEAP[environment][0],
    # Twice the updates for the same steps: metaparameters need updates.
    "--config.stac.batch_size=16", _AGE, _NEVER,
    "--config.log_every_seconds=0.2", *flags,
  )


def _dear(
  environment: str, steps: int, agent: str, seed: int, *flags: str
) -> list[str]:
  """Returns the flags of a run of minutes."""
  return _flags(environment, agent, seed, steps, _AGE, _NEVER, *flags)


def _agents(seed: int) -> _Runs:
  runs = {}
  for environment in _CHEAP:
    prefix = f"{_name(environment)}/right"
    for agent in (*_AGENTS, *_LADDER):
      runs[f"{prefix}/{agent}/{seed}"] = _cheap(environment, agent, seed)
    # η's step size of the papers is for a hundred times as many updates.
    for agent in ("stac", "stacx"):
      runs[f"{prefix}/{agent}_fast/{seed}"] = _cheap(
        environment, agent, seed, "--config.stac.meta_learning_rate=0.01"
      )
  return runs


def _perturbed(
  seed: int, environment: str, field: str, values: Sequence[float]
) -> _Runs:
  return {
    f"{_name(environment)}/{field}={value}/{agent}/{seed}": _cheap(
      environment, agent, seed, f"--config.stac.{field}={value}"
    )
    for value in values
    for agent in ("impala", "stacx")
  }


def _discount(seed: int) -> _Runs:
  runs: _Runs = {}
  for environment in _CHEAP:
    runs |= _perturbed(seed, environment, "discount", _DISCOUNTS)
  return runs


def _value_cost(seed: int) -> _Runs:
  runs: _Runs = {}
  for environment, (_, right) in _CHEAP.items():
    values = [round(factor * right, 4) for factor in _VALUE_COSTS]
    runs |= _perturbed(seed, environment, "value_cost", values)
  return runs


def _init(seed: int) -> _Runs:
  runs = {}
  for environment in _CHEAP:
    for value in _DISCOUNTS:
      logit = round(math.log(value / (1 - value)), 4)
      runs[f"{_name(environment)}/init={value}/stacx/{seed}"] = _cheap(
        environment, "stacx", seed,
        f"--config.stac.metaparameter_init={logit}",
      )
  return runs


def _split(seed: int) -> _Runs:
  return {
    f"{_name(environment)}/right/stacx_split_alpha/{seed}": _cheap(
      environment, "stacx_split_alpha", seed
    )
    for environment in _CHEAP
  }


def _scale(seed: int) -> _Runs:
  """Returns runs that show whether heads slow each other by 1/P alone.

  The mean over P heads divides the acting head's gradient by P. RMSProp undoes
  that except for its ε: ε / P² would undo all of it, and P² ε does to one head
  what P heads do to the acting one.
  """
  changes = [
    ("impala", 0.9), ("impala", 0.1 / 9), ("impala_aux", 0.1 / 9),
    ("stacx", 0.1 / 9),
  ]
  return {
    f"catch/rmsprop_eps={epsilon:.4g}/{agent}/{seed}": _cheap(
      "catch", agent, seed, f"--config.stac.rmsprop_eps={epsilon:.4g}"
    )
    for agent, epsilon in changes
  }


def _tasks(seed: int, tasks: dict[str, int]) -> _Runs:
  return {
    f"{_name(environment)}/right/{agent}/{seed}": _dear(
      environment, steps, agent, seed
    )
    for environment, steps in tasks.items()
    for agent in _AGENTS
  }


def _heads(seed: int) -> _Runs:
  """Returns runs with the papers' torso and optimiser, whose heads diverge.

  Less bootstrapping may prevent it.
  """
  environment = "control:cheetah/run"
  changes = [(agent, "torso", "mlp") for agent in _AGENTS] + [
    ("impala_aux", "discount", 0.95), ("impala_aux", "lambda_", 0.9),
    ("impala_aux", "lambda_", 0.7),
  ]
  return {
    f"{_name(environment)}/{field}={value}/{agent}/{seed}": _dear(
      environment, _CONTROL[environment], agent, seed,
      "--config.stac.torso=mlp", "--config.stac.optimizer=rmsprop",
      "--config.stac.entropy_cost=0.03", f"--config.stac.{field}={value}",
    )
    for agent, field, value in changes
  }


# Part -> makes its runs for a seed.
_PARTS = {
  "agents": _agents,
  "discount": _discount,
  "value_cost": _value_cost,
  "init": _init,
  "split": _split,
  "scale": _scale,
  "control": lambda seed: _tasks(seed, _CONTROL),
  "atari": lambda seed: _tasks(seed, _ATARI),
  "heads": _heads,
}
# These have fewer seeds.
_DEAR = ("control", "atari", "heads")


def get_runs(part: str = "") -> _Runs:
  """Returns a part of the study, or all of it; seeds come one after another.

  Raises:
    ValueError: if there is no such part.
  """
  runs = {}
  for name in [part] if part else _PARTS:
    make_runs = sweeps.choose(_PARTS, name)
    for seed in range(3 if name in _DEAR else 5):
      runs.update(make_runs(seed))
  return runs
