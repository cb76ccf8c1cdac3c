"""STACX and IMPALA on CartPole-v1, five seeds, one process each."""


def get_runs() -> dict[str, list[str]]:
  """Returns 2 agents × 5 seeds of 500,000 steps."""
  return {
    f"{agent}/{seed}": [
      "--config=configs/small.py:gymnasium:CartPole-v1",
      f"--config.agent={agent}",
      f"--config.seed={seed}",
      "--config.evaluation.every_steps=100000",
      "--launch=serial",
    ]
    for agent in ("impala", "stacx")
    for seed in range(5)
  }
