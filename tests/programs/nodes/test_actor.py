import time

import jax
import numpy as np
import pytest

from acme_stac.networks import make_networks
from configs import small
from programs.nodes import building
from programs.nodes.actor import Actor
from programs.nodes.counter import RunCounter
from programs.nodes.failures import HopelessError
from programs.run import validation
from tests.support import helpers


def never():
  return False


class Learner:
  """Serves parameters that nobody improves; slowly, if asked to."""

  def __init__(self, experiment, seconds=0.0):
    networks = make_networks(experiment.environment_spec, experiment.config)
    self._policy = jax.device_get(networks.init(jax.random.PRNGKey(0)))
    self._seconds = seconds
    self.version = 0

  def get_variables(self, names):
    time.sleep(self._seconds)
    values = {
      "policy": self._policy,
      "version": np.int32(self.version),
      "conditioning": helpers.NOTHING_EMBEDDED,
    }
    return [values[name] for name in names]


def test_an_actor_that_waited_fetches_parameters_again(
  tmp_path, quick_compilation
):
  config = small.get_config("catch")
  config.agent = "impala"
  experiment = validation.make_experiment(config, 1, str(tmp_path))
  # What is asked for in the background comes after the first step.
  learner = Learner(experiment, seconds=0.05)

  class Counter:
    answers = iter(["go", "wait", "go", "finished"])

    def reserve(self, actor, life, item, steps):
      answer = next(self.answers)
      if answer == "wait":
        # The learner has caught up meanwhile.
        learner.version = 7
        time.sleep(0.1)
      return answer

    def report_episodes(self, returns):
      pass

  replay = building.make_builder(experiment, never).make_local_queue()
  Actor(experiment, 0, replay, learner, Counter(), never).run()
  items = iter(replay)
  np.testing.assert_array_equal(next(items).params_version, 0)
  np.testing.assert_array_equal(next(items).params_version, 7)


@pytest.mark.parametrize("fault,message", [
  ("raise", "RuntimeError: the simulator is gone"),
  ("nan", "numbers in its observation"),
  ("shape", "observation"),
])
def test_an_environment_that_fails_is_made_again_within_a_limit(
  tmp_path, fault, message, caplog, quick_compilation
):
  config = small.get_config("python:tests.support.faulty:Faulty")
  config.agent = "impala"
  config.environment_options.fault = fault
  # Checking it takes less than these steps, an item takes 20 of them: every
  # failure comes with the 63rd item.
  config.environment_options.after = 1250
  config.environment_timeout_seconds = 1e9
  experiment = validation.make_experiment(config, 1, str(tmp_path))
  replay = building.make_builder(experiment, never).make_local_queue()
  actor = Actor(
    experiment, 0, replay, Learner(experiment), RunCounter(1, 1), never
  )
  items = iter(replay)
  for _ in range(62 * 6):
    assert actor.run_item()
    trajectory = next(items).trajectory
    assert np.isfinite(trajectory.observation).all()
    # Whatever was lost, a stream is whole.
    assert (trajectory.reward[trajectory.step_type == 0] == 0).all()
  with pytest.raises(HopelessError, match="failed 6 times") as raised:
    actor.run_item()
  assert message in str(raised.value)
  assert "Its last actions, the newest last:" in str(raised.value)
  assert caplog.text.count("Environments are made again") == 5
