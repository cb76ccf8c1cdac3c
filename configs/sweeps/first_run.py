"""The run of `make train`, beside the same start fixed, and the right start.

Runs are named task/start/agent/seed, where the start is the initial γ.
"""

import acme_stac

_START = 0.9


def get_runs() -> dict[str, list[str]]:
  """Returns 3 variants × 5 seeds; seeds come one after another."""
  outer = acme_stac.make_config("stacx", "small")
  fixed = [
    f"--config.stac.{name}={round(_START * getattr(outer, name), 4)}"
    for name in ("value_cost", "policy_cost", "entropy_cost")
  ] + [f"--config.stac.{name}={_START}" for name in ("lambda_", "alpha")]
  variants = {
    f"start={_START}/stacx": ["--config=configs/first_run.py"],
    f"start={_START}/impala_aux": [
      "--config=configs/small.py:gymnasium:CartPole-v1",
      "--config.agent=impala_aux",
      f"--config.stac.discount={_START}",
      *fixed,
    ],
    "start=0.99/stacx": ["--config=configs/small.py:gymnasium:CartPole-v1"],
  }
  return {
    f"CartPole-v1/{variant}/{seed}": [
      *flags,
      f"--config.seed={seed}",
      "--config.evaluation.every_steps=100000",
      "--launch=serial",
    ]
    for seed in range(5)
    for variant, flags in variants.items()
  }
