"""Where metrics go."""

import logging
import random
import sys
import types

import psutil
import pytest
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from programs import train
from programs.launch import session
from programs.nodes import logs
from programs.run import machine
from programs.run.errors import UserError
from tests.support import runs


class Wandb(types.ModuleType):
  """Weights & Biases, as far as a logger needs it."""

  def __init__(self, fails=False):
    super().__init__("wandb")
    self.__spec__ = types.SimpleNamespace(name="wandb")
    self.runs = []
    self.fails = fails

  def init(self, **arguments):
    if self.fails:
      raise OSError("no network")
    run = types.SimpleNamespace(
      arguments=arguments, rows=[], finished=False, metrics=[]
    )
    run.log = run.rows.append
    run.define_metric = lambda *args, **kwargs: run.metrics.append(
      (args, kwargs)
    )
    run.finish = lambda: setattr(run, "finished", True)
    self.runs.append(run)
    return run


@pytest.fixture
def wandb(monkeypatch):
  module = Wandb()
  monkeypatch.setitem(sys.modules, "wandb", module)
  return module


def test_weights_and_biases(tmp_path, wandb):
  experiment = runs.make_experiment(tmp_path / "try", wandb_project="stac")
  logger = logs.make_logger(experiment, "learner", dashboards=True)
  assert not wandb.runs
  for step in (640, 1280):
    logger.write({"environment_steps": step, "kl": 0.5})
  logger.close()
  (run,) = wandb.runs
  assert [row["environment_steps"] for row in run.rows] == [640, 1280]
  assert run.rows[0]["kl"] == 0.5
  assert run.finished
  assert run.metrics == [(("*",), {"step_metric": "environment_steps"})]
  arguments = run.arguments
  assert (arguments["project"], arguments["group"]) == ("stac", "try")
  assert arguments["config"]["config"]["num_heads"] == 3
  # The other places have the rows too.
  assert len(runs.rows(experiment.logs / "learner.csv")) == 2
  assert list((experiment.workdir / "tensorboard").rglob("events.*"))
  # Actors and logs of episodes would be too many.
  logs.make_logger(experiment, "actor_0").write({"a": 1})
  assert len(wandb.runs) == 1


def test_a_dashboard_that_fails_ends_nothing(tmp_path, wandb, caplog):
  wandb.fails = True
  experiment = runs.make_experiment(tmp_path, wandb_project="stac")
  logger = logs.make_logger(experiment, "learner", dashboards=True)
  with caplog.at_level(logging.WARNING):
    for step in range(3):
      logger.write({"environment_steps": step})
  logger.close()
  assert len(runs.rows(experiment.logs / "learner.csv")) == 3
  said = [r.message for r in caplog.records if "Weights" in r.message]
  assert len(said) == 1 and "no network" in said[0]


def test_a_dashboard_that_cannot_be(tmp_path, wandb, monkeypatch):
  arguments = [
    "--config=configs/small.py:catch", f"--workdir={tmp_path}",
    "--config.wandb_project=stac", "--launch=serial",
  ]
  monkeypatch.setattr(train, "_isolate", lambda parsed: True)
  monkeypatch.setattr(session, "launch", lambda *unused: 0)
  monkeypatch.setattr(machine, "use_compilation_cache", lambda: None)
  with pytest.raises(UserError, match="--noisolate_network"):
    train.main(arguments)
  monkeypatch.setenv("WANDB_MODE", "offline")
  assert train.main(arguments) == 0

  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UserError, match="wandb"):
    runs.make_experiment(tmp_path, wandb_project="stac")


def test_tensorboard_reads_what_is_written(tmp_path):
  experiment = runs.make_experiment(tmp_path)
  logger = logs.make_logger(experiment, "learner", dashboards=True)
  for step in (640, 1280):
    logger.write({"environment_steps": step, "policy_loss": step / 1280})
  logger.close()
  events = event_accumulator.EventAccumulator(
    str(experiment.workdir / "tensorboard")
  ).Reload()
  # Scalars of today's form, which TensorBoard's own reader makes tensors.
  (tag,) = events.Tags()["tensors"]
  assert tag == "learner/PolicyLoss"
  assert [
    (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
    for event in events.Tensors(tag)
  ] == [(640, 0.5), (1280, 1.0)]
  metadata = events.SummaryMetadata(tag)
  assert metadata.plugin_data.plugin_name == "scalars"


def test_tensorboard_keeps_no_numbers(tmp_path):
  """TensorFlow's cache of Python numbers would take 35 KB of every row."""
  experiment = runs.make_experiment(tmp_path)
  logger = logs.make_logger(experiment, "learner", dashboards=True)
  rng = random.Random(0)
  process = psutil.Process()

  def write(rows):
    for _ in range(rows):
      logger.write({
        "environment_steps": rng.randrange(10**9),
        **{f"metric_{i}": rng.random() for i in range(50)},
      })
    return process.memory_info().rss

  before = write(200)
  growth = write(800) - before
  logger.close()
  assert growth < 10e6


def test_rows_are_appended_under_the_columns_of_the_file(tmp_path):
  experiment = runs.make_experiment(tmp_path)
  for row in ({"b": 1, "c": 2}, {"c": 4, "a": 5}, {"b": 6, "c": 7, "d": 8}):
    logger = logs.make_logger(experiment, "episodes_actor_0")
    logger.write(row)
    logger.close()
  text = (experiment.logs / "episodes_actor_0.csv").read_text()
  assert text.splitlines() == ["b,c", "1,2", ",4", "6,7"]
