"""Records a run in one layer for tests/test_layers.py to load in the other.

  .venv/bin/python -m tests.data.record_layers distributed
  .venv-current/bin/python -m tests.data.record_layers current
"""

import json
import pathlib
import shutil
import sys

import numpy as np

import acme_stac
from programs import export, train

DATA = pathlib.Path(__file__).parent / "layers"
ARGUMENTS = (
  "--config=configs/small.py:catch", "--launch=serial",
  "--config.stac.torso_sizes=(8,)", "--config.stac.head_sizes=(8,)",
  "--config.evaluation.episodes=0",
)


def play(policy, steps=100):
  """Returns the actions of a policy for random boards of Catch."""
  boards = 5 * np.random.RandomState(0).normal(size=(steps, 10, 5))
  state = policy.initial_state(seed=0)
  return [int(policy(board.astype(np.float32), state)) for board in boards]


def main(name):
  """Writes the run of this name anew."""
  run = DATA / name
  shutil.rmtree(run, ignore_errors=True)
  train.main([
    *ARGUMENTS, f"--workdir={run}", "--config.num_environment_steps=3200"
  ])
  export.main([str(run), f"--output={run / 'policy.npz'}"])
  actions = play(acme_stac.load_policy(run))
  (run / "actions.json").write_text(json.dumps(actions))
  (run / ".lock").unlink()
  for path in run.iterdir():
    if path.is_dir() and path.name != "checkpoints":
      shutil.rmtree(path)


if __name__ == "__main__":
  main(sys.argv[1])
