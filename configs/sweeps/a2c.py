"""A2C on CartPole-v1 with γ fixed and with γ self-tuned, nine seeds each."""


def get_runs() -> dict[str, list[str]]:
  """Returns 2 agents × 9 seeds; both make 1,000 updates of 30 steps."""
  fixed = ["--config.stac.self_tuned=()", "--config.stac.outer_batch=same"]
  agents = {"fixed": (fixed, 30_000), "self_tuned": ([], 60_000)}
  return {
    f"a2c/{name}/{seed}": [
      "--config=configs/small.py:gymnasium:CartPole-v1",
      "--config.agent=a2c_meta_gamma",
      *flags,
      f"--config.seed={seed}",
      f"--config.num_environment_steps={steps}",
      "--config.evaluation.every_steps=1000000",
      "--launch=serial",
    ]
    for seed in range(9)
    for name, (flags, steps) in agents.items()
  }
