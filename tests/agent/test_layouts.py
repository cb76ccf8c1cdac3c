"""The agent in Acme's own programs: dm-acme 0.4.0 and its development head."""

import queue
import subprocess
import sys
import threading
import time

# Before anything of acme.jax, which needs names that it brings.
import acme_stac.agent  # isort: skip

import acme
import jax
import numpy as np
import pytest
import reverb
from absl import flags
from acme import core, specs, wrappers
from acme.jax.layouts import local_layout
from acme.tf import savers
from acme.utils import counting, loggers, observers

from acme_stac.agent import builder as builder_lib
from acme_stac.agent import checkpoints, layouts
from tests.support import helpers


class Rows(loggers.Logger):
  """Keeps what is written."""

  def __init__(self):
    self.rows = []

  def write(self, data):
    self.rows.append(dict(data))

  def close(self):
    pass


class Actions(observers.EnvLoopObserver):
  """Counts what the agent does."""

  def observe_first(self, env, timestep):
    self.number = 0

  def observe(self, env, timestep, action):
    env.action_spec().validate(action)
    self.number += 1

  def get_metrics(self):
    return {"actions": self.number}


def cart_pole(seed):
  return acme_stac.environments.make("gymnasium:CartPole-v1", seed=seed)


def swing_up(seed):
  """DM control as Acme's own examples wrap it."""
  # The first import of dm_control in a process decides what draws.
  acme_stac.environments.make("control:cartpole/swingup").close()
  from dm_control import suite

  environment = suite.load(
    "cartpole", "swingup", task_kwargs={"random": seed}
  )
  return wrappers.SinglePrecisionWrapper(
    wrappers.ConcatObservationWrapper(environment)
  )


@pytest.fixture(autouse=True)
def parsed_flags():
  """Acme's loops ask Launchpad's flags, which `absl.app.run` parses."""
  flags.FLAGS([sys.argv[0]])


def test_local_layout(tmp_path):
  environment = cart_pole(0)
  spec = specs.make_environment_spec(environment)
  config = helpers.small_config(lstm_size=8)
  builder = acme_stac.STACBuilder(config)
  networks = acme_stac.make_networks(spec, config)
  learned = Rows()
  layout_builder = layouts.LayoutBuilder(
    builder, spec, logger_fn=lambda label: learned
  )

  def make_agent(counter):
    return local_layout.LocalLayout(
      seed=0,
      environment_spec=spec,
      builder=layout_builder,
      networks=networks,
      policy_network=layout_builder.make_policy(networks),
      workdir=str(tmp_path),
      batch_size=layout_builder.batch_size,
      samples_per_insert=1,
      min_replay_size=1,
      counter=counter,
    )

  counter = counting.Counter(time_delta=0.0)
  agent = make_agent(counter)
  episodes = Rows()
  loop = acme.EnvironmentLoop(
    environment, agent,
    counter=counting.Counter(counter, "actor", time_delta=0.0),
    logger=episodes,
    observers=[Actions()],
  )
  before = agent._learner.get_variables(["policy"])[0]
  loop.run(num_steps=500)
  updates = agent._learner.num_steps
  # A batch may be on its way.
  assert 500 / config.steps_per_update - 3 <= updates
  assert counter.get_counts()["actor_steps"] >= 500
  last = episodes.rows[-1]
  assert np.isfinite(last["episode_return"])
  assert last["actions"] == last["episode_length"]
  assert all(np.isfinite(row["value_loss_head0"]) for row in learned.rows)
  # As Acme's learners do, for curves over the actors' steps.
  assert 0 < learned.rows[-1]["actor_steps"] <= 500
  after = agent._learner.get_variables(["policy"])[0]
  moved = jax.tree_util.tree_map(
    lambda a, b: np.abs(a - b).max(), before, after
  )
  assert max(jax.tree_util.tree_leaves(moved)) > 0

  # Acme's own checkpointer brings back the whole state.
  agent.save()
  state = agent._learner.save()
  again = make_agent(counting.Counter())
  jax.tree_util.tree_map(
    np.testing.assert_array_equal, again._learner.save(), state
  )
  assert again._learner.num_steps == updates


@pytest.mark.parametrize("outer_batch", ["next", "separate"])
def test_local_layout_with_a_batch_of_the_outer_loss(outer_batch):
  """One thread must not wait for what it has still to make."""
  environment = cart_pole(0)
  spec = specs.make_environment_spec(environment)
  config = helpers.small_config(
    "metagradient_impala", outer_batch=outer_batch, batch_size=1,
    trajectory_length=1,
  )
  builder = acme_stac.STACBuilder(
    config, learner_devices=jax.local_devices()[:1]
  )
  layout_builder = layouts.LayoutBuilder(builder, spec, lambda label: Rows())
  networks = acme_stac.make_networks(spec, config)
  agent = local_layout.LocalLayout(
    seed=0,
    environment_spec=spec,
    builder=layout_builder,
    networks=networks,
    policy_network=layout_builder.make_policy(networks),
    workdir=None,
    batch_size=layout_builder.batch_size,
    samples_per_insert=1,
    min_replay_size=1,
  )
  acme.EnvironmentLoop(environment, agent, logger=Rows()).run(num_steps=60)
  assert agent._learner.num_steps > 10


class PrefetchIterator:
  """Stands for that of Acme's head: two threads fill a buffer of one."""

  def __init__(self, iterable):
    self._buffer = queue.Queue(1)
    self._taken = 0
    for _ in range(2):
      threading.Thread(
        target=self._fill, args=(iterable,), daemon=True
      ).start()

  def _fill(self, iterable):
    for element in iterable:
      self._buffer.put(element)

  def ready(self):
    return not self._buffer.empty()

  def retrieved_elements(self):
    return self._taken

  def __next__(self):
    element = self._buffer.get()
    self._taken += 1
    return element


class Head:
  """`run_experiment` of Acme's development head, commit 770bc75.

  What it calls, in its order, with its positional arguments and keywords.
  """

  def __init__(self, builder, network_factory, environment, logger_factory):
    self.environment = environment
    spec = specs.make_environment_spec(environment)
    networks = network_factory(spec)
    policy = builder.make_policy(
      networks=networks, environment_spec=spec, evaluation=False
    )
    (table,) = builder.make_replay_tables(spec, policy)
    limits = table.info.rate_limiter_info
    # Inserts must not block where the same thread samples.
    self.table = table.replace(
      rate_limiter=reverb.rate_limiters.RateLimiter(
        samples_per_insert=limits.samples_per_insert,
        min_size_to_sample=limits.min_size_to_sample,
        min_diff=limits.min_diff,
        max_diff=sys.float_info.max,
      )
    )
    self.sample_size = max(1, int((limits.max_diff - limits.min_diff) / 2))
    self.server = reverb.Server([self.table], port=None)
    replay_client = reverb.Client(f"localhost:{self.server.port}")
    self.counter = counting.Counter(time_delta=0.0)
    self.dataset = PrefetchIterator(
      builder.make_dataset_iterator(replay_client)
    )
    self.learner = builder.make_learner(
      random_key=jax.random.PRNGKey(0),
      networks=networks,
      dataset=self.dataset,
      logger_fn=logger_factory,
      environment_spec=spec,
      replay_client=replay_client,
      counter=counting.Counter(self.counter, prefix="learner", time_delta=0.0),
    )
    adder = builder.make_adder(replay_client, spec, policy)
    self.actor = builder.make_actor(
      jax.random.PRNGKey(1), policy, spec, variable_source=self.learner,
      adder=adder,
    )
    self.evaluator = builder.make_actor(
      random_key=jax.random.PRNGKey(2),
      policy=builder.make_policy(
        networks=networks, environment_spec=spec, evaluation=True
      ),
      environment_spec=spec,
      variable_source=self.learner,
    )
    self.learner_steps = 0

  def update(self):
    """What head's learning actor does after every step of the environment."""
    trained = False
    while True:
      if self.dataset.ready():
        self.learner.step()
        taken = self.dataset.retrieved_elements() - self.learner_steps
        self.learner_steps += 1
        assert taken == 1, "a learner step takes exactly one element"
        trained = True
      elif not self.table.can_sample(self.sample_size):
        break
      else:
        time.sleep(0.001)
    if trained:
      self.actor.update()

  def run(self, num_steps):
    timestep = self.environment.reset()
    self.actor.observe_first(timestep)
    for _ in range(num_steps):
      action = self.actor.select_action(timestep.observation)
      timestep = self.environment.step(action)
      self.actor.observe(action, timestep)
      self.update()
      if timestep.last():
        timestep = self.environment.reset()
        self.actor.observe_first(timestep)


def test_development_head():
  config = helpers.small_config()
  rows = Rows()
  labels = []

  def logger_factory(label, steps_key=None, instance=None):
    labels.append(label)
    return rows

  head = Head(
    acme_stac.STACBuilder(config, log_every_seconds=0.0),
    lambda spec: acme_stac.make_networks(spec, config),
    swing_up(0),
    logger_factory,
  )
  head.run(500)
  assert labels == ["learner"]
  # Two threads hold a batch each, and the buffer one; nothing was dropped.
  assert head.learner_steps >= 500 / config.steps_per_update - 5
  assert head.counter.get_counts()["learner_steps"] == head.learner_steps
  assert rows.rows[-1]["learner_steps"] == head.learner_steps
  assert rows.rows[-1]["queue_fill"] <= 1.0
  assert rows.rows[-1]["learner_walltime"] > 0.0

  timestep = head.environment.reset()
  head.evaluator.observe_first(timestep)
  for _ in range(20):
    head.evaluator.update()
    action = head.evaluator.select_action(timestep.observation)
    head.environment.action_spec().validate(action)
    timestep = head.environment.step(action)
    head.evaluator.observe(action, timestep)


def test_the_end_of_a_program(monkeypatch):
  """A learner that waits for data ends with its program, by itself."""
  ending = threading.Event()
  monkeypatch.setattr(
    "launchpad.stop_event", lambda: ending
  )
  config = helpers.small_config()
  spec = helpers.environment_spec()
  builder = acme_stac.STACBuilder(config)

  class Never:
    def ready(self):
      return False

    def retrieved_elements(self):
      return 0

    def __next__(self):
      raise AssertionError("nothing is there")

  for dataset in (Never(), iter(lambda: time.sleep(3600), None)):
    learner = builder.make_learner(
      jax.random.PRNGKey(0), acme_stac.make_networks(spec, config), dataset,
      lambda label: Rows(), spec,
    )
    ending.clear()
    threading.Timer(0.3, ending.set).start()
    with pytest.raises(StopIteration):
      learner.step()


def test_no_program_goes_on():
  # With and without flags that were parsed.
  assert not builder_lib._program_ends()
  flags.FLAGS.unparse_flags()
  assert not builder_lib._program_ends()


def test_a_node_that_waits_for_another_ends_when_it_is_told_to():
  program = """
import signal
import courier, portpicker
from acme_stac.agent import layouts
layouts.end_soon_after_sigterm()
signal.signal(signal.SIGTERM, lambda *_: None)  # as Launchpad has its own
print("waits", flush=True)
# Nobody answers; the call waits where Python's handlers do not run.
courier.Client(f"localhost:{portpicker.pick_unused_port()}").get_variables()
"""
  with subprocess.Popen(
    [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
  ) as process:
    try:
      assert process.stdout.readline() == "waits\n"
      time.sleep(1)
      process.terminate()
      # Launchpad gives ten seconds.
      assert process.wait(9) == 0
    finally:
      process.kill()


def test_a_policy_comes_from_a_checkpoint_of_acme(tmp_path):
  config = helpers.small_config()
  spec = helpers.environment_spec()
  networks = acme_stac.make_networks(spec, config)
  state = acme_stac.core.make_update(networks, config).init(
    jax.random.PRNGKey(3)
  )

  class Learner(core.Saveable):
    def save(self):
      return jax.device_get(state)

    def restore(self, unused_state):
      raise AssertionError("There is nothing to restore.")

  with pytest.raises(ValueError, match="no checkpoint of a learner"):
    checkpoints.restore_state(tmp_path)
  savers.Checkpointer(
    {"learner": Learner()}, directory=str(tmp_path), subdirectory="learner",
    add_uid=False,
  ).save(force=True)
  restored = checkpoints.restore_state(tmp_path)
  jax.tree_util.tree_map(np.testing.assert_array_equal, restored, state)
  acme_stac.save_policy(tmp_path / "policy.npz", restored, config, spec)
  policy = acme_stac.load_policy(tmp_path / "policy.npz")
  assert int(policy(np.zeros(4), policy.initial_state())) in range(3)
