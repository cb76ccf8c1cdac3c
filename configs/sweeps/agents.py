"""Every agent of the papers, five minutes each where seven share two cores."""

import acme_stac

_CARTPOLE = "configs/small.py:gymnasium:CartPole-v1"
_CONTROL = "configs/small.py:control:cartpole/balance"
# Environment steps of a few minutes, by what an update costs.
_STEPS = {
  "impala": 1_800_000,
  "stac": 800_000,
  "stacx": 320_000,
  "impala_aux": 600_000,
  "a2c_meta_gamma": 100_000,
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
  """Returns the agents on CartPole, and some in a continuous space."""
  runs = {}
  for agent in acme_stac.AGENTS:
    heads = acme_stac.make_config(agent, "small").num_heads
    steps = _STEPS.get(agent, 500_000 if heads == 1 else 160_000)
    runs[f"cartpole/{agent}"] = _flags(agent, _CARTPOLE, steps)
  for number in (2, 5, 8):
    runs[f"cartpole/stacx_{number}_heads"] = [
      *_flags("stacx", _CARTPOLE, 500_000 // (number + 1)),
      f"--config.stac.num_heads={number}",
    ]
  for agent in ("impala", "stac", "stacx", "stacx_average_ensemble"):
    runs[f"control/{agent}"] = _flags(agent, _CONTROL, 120_000)
  return runs
