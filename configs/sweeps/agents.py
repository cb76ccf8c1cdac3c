"""Every preset on CartPole-v1, and some with continuous actions.

A run takes about five minutes when six share two cores.
"""

import acme_stac

_CARTPOLE = "configs/small.py:gymnasium:CartPole-v1"
_CONTROL = "configs/control.py:cartpole/swingup"
# Environment steps of a few minutes: they depend on the cost of an update.
_STEPS = {
  "impala": 1_800_000,
  "stac": 800_000,
  "stacx": 320_000,
  "impala_aux": 600_000,
  "a2c_meta_gamma": 100_000,
}
_CONTROL_STEPS = {
  "impala": 150_000,
  "stac": 120_000,
  "stacx": 80_000,
  "stacx_average_ensemble": 60_000,
}


def _flags(agent: str, config: str, steps: int) -> list[str]:
  return [
    f"--config={config}",
    f"--config.agent={agent}",
    f"--config.num_environment_steps={steps}",
    "--config.evaluation.every_steps=500000",
    "--launch=local_mp",
  ]


def get_runs() -> dict[str, list[str]]:
  """Returns the agents on CartPole, and some with continuous actions."""
  runs = {}
  for agent in acme_stac.AGENTS:
    heads = acme_stac.make_config(agent, "small").num_heads
    steps = _STEPS.get(agent, 500_000 if heads == 1 else 160_000)
    runs[f"cartpole/{agent}"] = _flags(agent, _CARTPOLE, steps)
  for number in (2, 5, 8):
    runs[f"cartpole/stacx_{number}_heads"] = [
      *_flags("stacx", _CARTPOLE, 160_000),
      f"--config.stac.num_heads={number}",
    ]
  for agent, steps in _CONTROL_STEPS.items():
    runs[f"control/{agent}"] = _flags(agent, _CONTROL, steps)
  return runs
