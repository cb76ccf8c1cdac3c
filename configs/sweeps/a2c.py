"""A2C on CartPole-v1 with γ fixed and with γ self-tuned, nine seeds each.

Starts from the four values of γ in a replication of Xu et al. (2018).
"""

_DISCOUNTS = (0.99, 0.8, 0.9, 1.0)


def get_runs() -> dict[str, list[str]]:
  """Returns 4 values × 2 agents × 9 seeds, of 1,000 updates of 30 steps."""
  agents = {
    "fixed": (
      30_000,
      [
        "--config.stac.discount={}", "--config.stac.self_tuned=()",
        "--config.stac.outer_batch=same",
      ],
    ),
    "self_tuned": (60_000, ["--config.stac.metaparameter_init={}"]),
  }
  return {
    f"CartPole-v1/discount={discount}/a2c_{name}/{seed}": [
      "--config=configs/small.py:gymnasium:CartPole-v1",
      "--config.agent=a2c_meta_gamma",
      *[flag.format(discount) for flag in flags],
      f"--config.seed={seed}",
      f"--config.num_environment_steps={steps}",
      "--config.evaluation.every_steps=1000000",
      "--launch=serial",
    ]
    for discount in _DISCOUNTS
    for seed in range(9)
    for name, (steps, flags) in agents.items()
  }
