"""STAC and IMPALA on a task of each domain, half an hour on one core each."""

# Environment steps of IMPALA and of STAC in 30 minutes, two runs on two cores.
_TASKS = {
  "control:cartpole/swingup": (4_800_000, 3_200_000),
  "control:cheetah/run": (6_000_000, 3_400_000),
  "rwrl:cartpole/swingup/easy": (2_600_000, 2_300_000),
  "atari:breakout": (5_000_000, 2_400_000),
}


def get_runs() -> dict[str, list[str]]:
  """Returns 4 tasks × 2 agents, evaluated over 30 episodes at the end."""
  return {
    f"{task.replace(':', '/')}/{agent}": [
      f"--config=configs/small.py:{task}",
      f"--config.agent={agent}",
      f"--config.num_environment_steps={steps}",
      "--config.evaluation.episodes=30",
      "--config.evaluation.every_steps=100000000",
      "--launch=local_mp",
    ]
    for task, budgets in _TASKS.items()
    for agent, steps in zip(("impala", "stac"), budgets, strict=True)
  }
