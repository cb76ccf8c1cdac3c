"""IMPALA and STACX on seven Gymnasium tasks, three seeds each.

Agents are evaluated before the first and after the last update.
"""

_TASKS = (
  "Acrobot-v1",
  "LunarLander-v3",
  "Pendulum-v1",
  "MountainCarContinuous-v0",
  "Hopper-v5",
  "HalfCheetah-v5",
  "Ant-v5",
)


def get_runs() -> dict[str, list[str]]:
  """Returns 7 tasks × 2 agents × 3 seeds of 100,000 steps."""
  return {
    f"{task}/{agent}/{seed}": [
      f"--config=configs/small.py:gymnasium:{task}",
      f"--config.agent={agent}",
      f"--config.seed={seed}",
      "--config.num_environment_steps=100000",
      "--config.evaluation.every_steps=100000000",
      "--launch=serial",
    ]
    for agent in ("impala", "stacx")
    for seed in range(3)
    for task in _TASKS
  }
