import time

import jax
import numpy as np
import pytest

from acme_stac.networks import make_networks
from acme_stac.training import LocalQueue
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
  assert caplog.text.count("Making new environments") == 5


@pytest.mark.parametrize("groups,members,overlap", [
  (1, 4, 0), (2, 4, 0), (2, 8, 3), (4, 8, 0),
])
def test_groups_of_environments_take_turns_and_each_stream_is_whole(
  tmp_path, groups, members, overlap, quick_compilation
):
  """Also where an actor has more environments than a batch."""
  config = small.get_config("catch")
  config.agent = "impala"
  config.environments_per_actor = members
  config.stac.batch_size = 4
  config.stac.trajectory_length = 5
  config.stac.trajectory_overlap = overlap
  experiment = validation.make_experiment(config, 1, str(tmp_path))
  builder = building.make_builder(experiment, never)
  queue = LocalQueue(100)
  actor = Actor(
    experiment, 0, queue, Learner(experiment), RunCounter(1, 1), never,
    num_groups=groups,
  )
  for _ in range(3):
    assert actor.run_item()
  assert queue.num_items == 3 * max(groups, members // 4)
  batches = builder.make_batches(queue)
  rows = [next(batches).trajectory for _ in range(3 * members // 4)]
  # Batches of one turn hold different environments of the actor.
  per_turn = members // 4
  for turn in range(2):
    for earlier, later in zip(
      rows[turn * per_turn :], rows[(turn + 1) * per_turn :][:per_turn],
      strict=False,
    ):
      np.testing.assert_array_equal(
        earlier.observation[5 - overlap :], later.observation[: overlap + 1]
      )
  for trajectory in rows:
    assert (trajectory.reward[trajectory.step_type == 0] == 0).all()
    assert (trajectory.behaviour_log_prob[:-1] < 0).all()
  actor.close()


def test_a_group_that_fails_does_not_disturb_the_others(
  tmp_path, caplog, quick_compilation
):
  config = small.get_config("python:tests.support.faulty:Faulty")
  config.agent = "impala"
  config.environment_options.fault = "raise"
  config.environment_options.after = 1250
  config.environments_per_actor = 4
  config.environment_timeout_seconds = 1e9
  experiment = validation.make_experiment(config, 1, str(tmp_path))
  queue = LocalQueue(1000)
  actor = Actor(
    experiment, 0, queue, Learner(experiment), RunCounter(1, 1), never,
    num_groups=2,
  )
  for turn in range(70):
    assert actor.run_item()
    assert queue.num_items == 2 * (turn + 1)
  assert "Making new environments" in caplog.text
  for _, item in zip(range(140), queue, strict=False):
    reward, step_type = item.trajectory.reward, item.trajectory.step_type
    assert (reward[step_type == 0] == 0).all()
  actor.close()
