"""STAC against IMPALA with wrong fixed hyperparameters (section 4.3).

STAC's outer loss has the same wrong value as IMPALA's loss. Small batches make
for about a thousand updates of the metaparameters.
"""

_TASKS = {
  "cartpole": ("gymnasium:CartPole-v1", 100_000),
  "catch": ("catch", 100_000),
}
# γ and g_v; the right values are 0.99 and 0.25.
_PERTURBATIONS = [
  ("discount", 0.99),
  *[("discount", value) for value in (0.9, 0.995, 0.999)],
  *[("value_cost", value) for value in (0.05, 1.0)],
]


def get_runs() -> dict[str, list[str]]:
  """Returns 2 tasks × 6 values × 2 agents × 5 seeds."""
  return {
    f"{task}/{name}_{value}/{agent}/{seed}": [
      f"--config=configs/small.py:{environment}",
      f"--config.agent={agent}",
      # Those of Table 3 rather than the small configuration's.
      "--config.stac.value_cost=0.25",
      "--config.stac.entropy_cost=0.01",
      f"--config.stac.{name}={value}",
      f"--config.seed={seed}",
      f"--config.num_environment_steps={steps}",
      "--config.stac.batch_size=8",
      "--config.stac.learning_rate=2e-3",
      "--config.evaluation.every_steps=1000000",
      "--launch=serial",
    ]
    for seed in range(5)
    for task, (environment, steps) in _TASKS.items()
    for name, value in _PERTURBATIONS
    for agent in ("impala", "stac")
  }
