"""Runs whose actors and learner are threads of one process."""

import re
import threading
from concurrent import futures

import pytest

from programs.launch import colocated, ending
from programs.launch.progress import Progress
from programs.nodes.counter import RunCounter
from tests.support import runs


@pytest.mark.parametrize(
  "devices,batch_size,learners",
  [(1, 32, 1), (2, 32, 1), (3, 32, 2), (4, 32, 2), (8, 32, 4), (8, 35, 7),
   (8, 21, 7), (4, 1, 1)],
)
def test_split_of_devices(devices, batch_size, learners):
  learn, act = colocated.split_devices(list(range(devices)), batch_size)
  assert learn == list(range(learners))
  assert act == (list(range(learners, devices)) if devices > 1 else [0])


def test_death_of_a_thread_is_told_with_its_last_lines():
  def die():
    raise OSError("the disk is gone")

  with futures.ThreadPoolExecutor(2) as pool:
    ended = threading.Event()
    running = {pool.submit(die): "actor/1", pool.submit(ended.wait): "learner"}
    with pytest.raises(ending.NodeDiedError) as raised:
      colocated.watch(running, RunCounter(10, 10), Progress())
    ended.set()
  message = str(raised.value)
  assert message.startswith("actor/1 died, so the run was stopped:")
  assert "OSError: the disk is gone" in message
  assert "in die" in message


@pytest.mark.slow
def test_devices_are_set_aside_for_acting(tmp_path, quick_compilation, capsys):
  arguments = (
    "--launch=colocated",
    "--num_actors=2",
    "--config.stac.batch_size=4",
    "--config.environments_per_actor=2",
    "--config.checkpoint_every_seconds=1",
    *runs.SMALL,
  )
  assert runs.train(
    tmp_path, *arguments, "--config.num_environment_steps=1600"
  ) == 0
  said = capsys.readouterr().out
  learners, acting = re.search(
    r"Learner on \[(.*)\], inference on \[(.*)\]", said
  ).groups()
  # Of the four devices that conftest makes.
  assert len(re.findall(r"id=\d", learners)) == 2, learners
  assert len(re.findall(r"id=\d", acting)) == 2, acting
  logs = tmp_path / "logs"
  learner = runs.rows(logs / "learner.csv")
  assert float(learner[-1]["environment_steps"]) == 1600
  assert all(0 <= float(row["queue_fill"]) <= 1 for row in learner)
  for index in range(2):
    actor = runs.rows(logs / f"actor_{index}.csv")
    assert float(actor[-1]["share_inference"]) > 0
  evaluator = runs.rows(logs / "evaluator.csv")
  assert float(evaluator[-1]["learner_steps"]) == 20

  assert runs.train(
    tmp_path, *arguments, "--config.num_environment_steps=3200"
  ) == 0
  said = capsys.readouterr().out
  assert "Resuming after 20 updates" in said
  assert "changed: --config.num_environment_steps" in said
  learner = runs.rows(logs / "learner.csv")
  assert float(learner[-1]["environment_steps"]) == 3200


@pytest.mark.slow
@pytest.mark.parametrize("agent,level,budget,per_update", [
  ("metagradient_impala", "catch", 12_800, 640),
  ("stacx_random_ensemble", "catch", 12_800, 640),
  ("a2c_meta_gamma", "gymnasium:CartPole-v1", 1_800, 60),
])
def test_variants_train(
  tmp_path, agent, level, budget, per_update, quick_compilation
):
  """Held-out batches for the learner, heads for the actors."""
  assert runs.train(
    tmp_path,
    "--launch=colocated",
    f"--config.agent={agent}",
    f"--config.num_environment_steps={budget}",
    "--config.log_every_seconds=0.01",
    *runs.SMALL[:3],
    config=f"configs/small.py:{level}",
  ) == 0
  runs.check_variant(tmp_path, budget // per_update)
