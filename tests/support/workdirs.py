"""Work directories as a run leaves them, without a run."""

import csv
import dataclasses
import json

import numpy as np

import acme_stac


def make(
  directory, task, agent, seed, final, share=1.0, rows=12, sigmas=None,
  rate=100.0, options=None, side_by_side=1, **settings,
):
  """Writes a work directory whose return rises along a line to `final`.

  Args:
    directory: to write to.
    task: name of an environment.
    agent: name of a preset.
    seed: of the run.
    final: return at the end.
    share: of its budget that the run has done.
    rows: of its log.
    sigmas: column -> value at the end; they begin at 0.99.
    rate: environment steps a second.
    options: of the environment.
    side_by_side: runs of the program that trained it.
    **settings: of the agent.
  """
  config = acme_stac.make_config(
    agent, "small", **{"num_environment_steps": 64_000, **settings}
  )
  logs = directory / "logs"
  logs.mkdir(parents=True)
  (directory / "config.json").write_text(json.dumps({
    "agent": agent,
    "environment": task,
    "environment_options": options or {},
    "networks": None,
    "seed": seed,
    "config": dataclasses.asdict(config),
  }))
  total = round(share * config.num_updates)
  updates = np.unique(np.linspace(1, total, rows).round().astype(int))
  with open(logs / "learner.csv", "w", newline="") as file:
    writer = None
    for update in updates if total else ():
      done = update / config.num_updates
      row = {
        "learner_steps": update,
        "environment_steps": update * config.steps_per_update,
        "environment_steps_per_second": rate,
        "episode_return": done * final,
        "value_loss_head0": 1.0,
        **({"runs_side_by_side": side_by_side} if side_by_side > 1 else {}),
        **{
          name: 0.99 + done * (value - 0.99)
          for name, value in (sigmas or {}).items()
        },
      }
      if writer is None:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
      writer.writerow(row)
  return directory
