import threading
import time
from concurrent import futures

import jax
import numpy as np
import pytest

from acme_stac.networks import make_networks
from configs import small
from programs import calls, counter, ending, launching, nodes
from programs import experiment as experiment_lib
from programs.progress import Progress


def test_publisher_tells_of_the_newest_state():
  states = [0]
  told = []
  busy, go_on = threading.Event(), threading.Event()

  def publish():
    told.append(states[-1])
    busy.set()
    assert go_on.wait(10)

  publisher = calls.Publisher(publish)
  states.append(1)
  publisher.notify()
  assert busy.wait(10)
  # These come while it talks; only the last of them is told.
  for state in (2, 3, 4):
    states.append(state)
    publisher.notify()
  go_on.set()
  publisher.close()
  assert told[0] == 1
  assert told[-1] == 4
  assert 2 not in told and 3 not in told


def test_publisher_tells_of_the_last_state_before_it_ends():
  told = []
  publisher = calls.Publisher(lambda: told.append(1))
  publisher.close()
  assert told == [1]


def test_what_publishing_raises_is_not_lost():
  def publish():
    raise OSError("gone")

  publisher = calls.Publisher(publish)
  publisher.notify()
  publisher._thread.join(10)
  assert publisher.failed
  with pytest.raises(OSError, match="gone"):
    publisher.close()


def test_what_publishing_raises_at_the_end_is_no_error():
  def publish():
    raise calls.EndedError

  publisher = calls.Publisher(publish)
  publisher.notify()
  publisher.close()
  assert not publisher.failed


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


def test_an_actor_that_waited_fetches_parameters_again(tmp_path):
  config = small.get_config("catch")
  config.agent = "impala"
  experiment = experiment_lib.make_experiment(config, 1, str(tmp_path))
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
