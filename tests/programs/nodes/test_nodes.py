import pickle
import threading
import time
from concurrent import futures

import jax
import numpy as np
import pytest

from acme_stac.networks import make_networks
from configs import small
from programs.launch import ending, launching
from programs.launch.progress import Progress
from programs.nodes import counter, nodes
from programs.nodes.calls import NotReadyError
from programs.run import validation


def test_death_of_a_thread_is_told_with_its_last_lines():
  def die():
    raise OSError("the disk is gone")

  with futures.ThreadPoolExecutor(2) as pool:
    ended = threading.Event()
    running = {pool.submit(die): "actor/1", pool.submit(ended.wait): "learner"}
    with pytest.raises(ending.NodeDiedError) as raised:
      launching._watch_threads(running, counter.RunCounter(10, 10), Progress())
    ended.set()
  message = str(raised.value)
  assert message.startswith("actor/1 died, so the run was stopped:")
  assert "OSError: the disk is gone" in message
  assert "in die" in message


def test_variables_that_are_not_there_yet_are_no_error_of_the_server(
  monkeypatch
):
  monkeypatch.setattr(nodes, "_VARIABLES_TIMEOUT_SECONDS", 0.01)
  server = nodes.VariableServer()
  # Courier would log a traceback of what it raised.
  assert server.get_variables(["version"]) is None
  source = nodes.VariableSource(server)
  with pytest.raises(NotReadyError):
    source.get_variables(["version"])
  server.put(pickle.dumps({"version": 3, "policy": 4}))
  assert source.get_variables(["policy", "version"]) == [4, 3]


def test_an_actor_that_waited_fetches_parameters_again(tmp_path):
  config = small.get_config("catch")
  config.agent = "impala"
  experiment = validation.make_experiment(config, 1, str(tmp_path))
  networks = make_networks(experiment.environment_spec, experiment.config)
  params = jax.device_get(networks.init(jax.random.PRNGKey(0)))
  learner_step = 0

  class Learner:
    def get_variables(self, names):
      # What is asked for in the background comes after the first step.
      time.sleep(0.05)
      values = {"policy": params, "version": np.int32(learner_step)}
      return [values[name] for name in names]

  class Counter:
    answers = iter(["go", "wait", "go", "finished"])

    def reserve(self, actor, life, item, steps):
      nonlocal learner_step
      answer = next(self.answers)
      if answer == "wait":
        # The learner has caught up meanwhile.
        learner_step = 7
        time.sleep(0.1)
      return answer

    def report_episodes(self, returns):
      pass

  replay = nodes.make_builder(experiment, lambda: False).make_local_queue()
  actor = nodes.Actor(
    experiment, 0, replay, Learner(), Counter(), lambda: False
  )
  actor.run()
  items = iter(replay)
  np.testing.assert_array_equal(next(items).params_version, 0)
  np.testing.assert_array_equal(next(items).params_version, 7)


class Learner:
  """Serves parameters that nobody improves."""

  def __init__(self, experiment):
    networks = make_networks(experiment.environment_spec, experiment.config)
    self._variables = {
      "policy": jax.device_get(networks.init(jax.random.PRNGKey(0))),
      "version": np.int32(0),
    }

  def get_variables(self, names):
    return [self._variables[name] for name in names]


def faulty_experiment(tmp_path, fault, after):
  config = small.get_config("python:tests.support.faulty:Faulty")
  config.agent = "impala"
  config.environment_options.fault = fault
  config.environment_options.after = after
  config.environment_timeout_seconds = 1e9
  return validation.make_experiment(config, 1, str(tmp_path))


@pytest.mark.parametrize("fault,message", [
  ("raise", "RuntimeError: the simulator is gone"),
  ("nan", "numbers in its observation"),
  ("shape", "observation"),
])
def test_an_environment_that_fails_is_made_again_within_a_limit(
  tmp_path, fault, message, caplog
):
  # Checking it takes less than these steps, an item takes 20 of them: every
  # failure comes with the 63rd item.
  experiment = faulty_experiment(tmp_path, fault, 1250)
  replay = nodes.make_builder(experiment, lambda: False).make_local_queue()
  actor = nodes.Actor(
    experiment, 0, replay, Learner(experiment), counter.RunCounter(1, 1),
    lambda: False,
  )
  items = iter(replay)
  for _ in range(62 * 6):
    assert actor.run_item()
    trajectory = next(items).trajectory
    assert np.isfinite(trajectory.observation).all()
    # Whatever was lost, a stream is whole.
    assert (trajectory.reward[trajectory.step_type == 0] == 0).all()
  with pytest.raises(nodes.HopelessError, match="failed 6 times") as raised:
    actor.run_item()
  assert message in str(raised.value)
  assert "Its last actions, the newest last:" in str(raised.value)
  assert caplog.text.count("Environments are made again") == 5
