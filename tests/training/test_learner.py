import itertools
import threading
import time

import jax
import numpy as np
import pytest

from acme_stac import core
from acme_stac.training import Learner, waiting
from acme_stac.training.prefetch import Prefetch
from acme_stac.training.samples import Sample
from tests.support import helpers

pytestmark = pytest.mark.usefixtures("quick_compilation")


def samples(config, count=None):
  seeds = itertools.count() if count is None else range(count)
  for seed in seeds:
    yield Sample(
      helpers.trajectory(config, seed),
      np.zeros(config.batch_size, np.int32),
    )


def make(config, **kwargs):
  networks = helpers.networks(config)
  kwargs.setdefault("iterator", samples(config))
  return Learner(
    networks, config, jax.random.PRNGKey(0), **kwargs
  )


@pytest.mark.parametrize("agent,lstm_size", [("impala", None), ("stacx", 4)])
def test_many_devices_equal_one(agent, lstm_size):
  """Gradients and metagradients of the whole batch, however it is split."""
  assert len(jax.local_devices()) == 4
  config = helpers.small_config(agent, lstm_size=lstm_size)
  states = []
  for count in (1, 4):
    learner = make(config, devices=jax.local_devices()[:count])
    for _ in range(3):
      learner.step()
    # It compiles once, also after the state came from a checkpoint.
    learner.restore(learner.save())
    learner.step()
    assert learner._parallel.update._cache_size() == 1
    states.append(learner.save())
  jax.tree_util.tree_map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
    states[1][:4],
    states[0][:4],
  )


def test_devices_must_divide_the_batch():
  config = helpers.small_config(batch_size=6)
  with pytest.raises(ValueError, match=r"\(6\) must be a multiple.*\(4\)"):
    make(config)


def test_restored_learner_goes_on_exactly():
  config = helpers.small_config()
  whole = make(config)
  for _ in range(6):
    whole.step()
  first = make(config, iterator=samples(config, 3))
  for _ in range(3):
    first.step()
  rest = make(config, iterator=itertools.islice(samples(config), 3, None))
  rest.restore(first.save())
  assert rest.num_steps == 3
  for _ in range(3):
    rest.step()
  jax.tree_util.tree_map(
    np.testing.assert_array_equal, rest.save(), whole.save()
  )
  assert rest.get_variables(["version"]) == [6]


@pytest.mark.parametrize(
  "outer_batch,inner,outer",
  [("same", [0, 1, 2], [0, 1, 2]), ("next", [0, 1, 2], [1, 2, 3]),
   ("separate", [0, 2, 4], [1, 3, 5])],
)
def test_which_batches_an_update_sees(outer_batch, inner, outer):
  config = helpers.small_config("stac", outer_batch=outer_batch)
  learner = make(config, iterator=samples(config))
  networks = helpers.networks(config)
  update = core.make_update(networks, config)
  state = update.init(jax.random.PRNGKey(0))
  for first, second in zip(inner, outer, strict=True):
    learner.step()
    state, _ = jax.jit(update.update)(
      state,
      helpers.trajectory(config, first),
      helpers.trajectory(config, second),
    )
  jax.tree_util.tree_map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
    learner.save()[:4],
    state[:4],
  )


def test_batch_in_hand_is_kept_when_there_are_no_more():
  config = helpers.small_config("metagradient_impala")
  learner = make(config, iterator=samples(config, 3))
  learner.step()
  learner.step()
  with pytest.raises(StopIteration):
    learner.step()
  assert learner.num_steps == 2


def test_steps_that_an_update_consumes():
  config = helpers.small_config("stac", outer_batch="separate")
  assert config.steps_per_update == 2 * 4 * 5
  assert config.num_updates == 2000 // 40
  # Without an outer loss there is nothing to hold out for.
  impala = helpers.small_config("impala", outer_batch="separate")
  assert impala.steps_per_update == 4 * 5


def test_conditioning_is_a_variable():
  config = helpers.small_config("stacx_gamma_embedding")
  learner = make(config)
  (before,) = learner.get_variables(["conditioning"])
  assert before.shape == (3, 1)
  learner.step()
  (after,) = learner.get_variables(["conditioning"])
  assert np.all(before != after)
  (none,) = make(helpers.small_config()).get_variables(["conditioning"])
  assert none.shape == (3, 0)


def test_log():
  config = helpers.small_config()
  rows = []
  learner = make(
    config,
    write_row=rows.append,
    log_every_seconds=0.0,
    extra_metrics=lambda: {"queue_fill": 0.5},
  )
  learner.step()
  learner.step()
  row = rows[-1]
  for name in config.self_tuned:
    for head in range(3):
      assert 0.98 < row[f"sigma_{name}_head{head}"] < 1.0
  for name in (
    "value_loss_head2",
    "policy_loss_head0",
    "entropy_loss_head1",
    "outer_loss",
    "kl",
    "entropy",
    "gradient_norm",
    "meta_gradient_norm",
    "importance_weight_mean",
    "importance_weight_max",
    "environment_steps_per_second",
  ):
    assert np.isfinite(row[name]), name
  assert row["learner_steps"] == 2
  assert row["environment_steps"] == 2 * config.steps_per_update
  # The second batch came from version 0 and met version 1.
  assert row["policy_age_mean"] == 1.0
  assert row["skipped_updates"] == 0
  assert row["queue_fill"] == 0.5
  expected = core.learning_rate(1, config)
  np.testing.assert_allclose(row["learning_rate"], expected, rtol=1e-6)


def test_the_newest_update_is_logged_on_request():
  rows = []
  learner = make(
    helpers.small_config(), write_row=rows.append, log_every_seconds=1e9
  )
  learner.step()
  learner.step()
  assert not rows
  learner.write_log()
  learner.write_log()
  assert [row["learner_steps"] for row in rows] == [2]


def test_end_and_errors_of_the_data():
  config = helpers.small_config()
  learner = make(config, iterator=samples(config, 1))
  learner.step()
  for _ in range(2):
    with pytest.raises(StopIteration):
      learner.step()

  def broken():
    yield next(samples(config))
    raise OSError("the wire broke")

  learner = make(config, iterator=broken())
  learner.step()
  with pytest.raises(OSError, match="the wire broke"):
    learner.step()


def test_stopping_frees_a_waiting_learner():
  stopped = threading.Event()

  def silent():
    threading.Event().wait(30)
    yield

  learner = make(
    helpers.small_config(), iterator=silent(), should_stop=stopped.is_set
  )
  threading.Timer(0.5, stopped.set).start()
  started = time.monotonic()
  with pytest.raises(StopIteration):
    learner.step()
  assert 0.4 < time.monotonic() - started < 5


def test_waiting_for_long_logs_a_warning(monkeypatch, caplog):
  monkeypatch.setattr(waiting, "_WARN_SECONDS", 0.3)
  deadline = time.monotonic() + 60.0
  learner = make(
    helpers.small_config(),
    iterator=iter(lambda: time.sleep(3600), None),
    should_stop=lambda: (
      "LayoutBuilder.batch_size" in caplog.text or time.monotonic() > deadline
    ),
  )
  with pytest.raises(StopIteration):
    learner.step()
  assert "Waiting for data" in caplog.text
  assert "LayoutBuilder.batch_size" in caplog.text


def test_a_state_of_another_agent_is_refused():
  learner, other = (
    make(config)
    for config in (
      helpers.small_config(), helpers.small_config(torso_sizes=(9,))
    )
  )
  with pytest.raises(ValueError, match="of other networks or another agent"):
    learner.restore(other.save())


def test_prefetch_is_ahead_but_bounded():
  taken = []
  more = threading.Event()

  def source():
    for i in range(10):
      taken.append(i)
      more.set()
      yield i

  iterator = Prefetch(source(), lambda x: 2 * x)
  assert more.wait(5)
  time.sleep(0.2)
  assert taken == [0]
  assert next(iterator) == 0
  assert [*iterator] == list(range(2, 20, 2))
  assert taken == list(range(10))


def test_skipped_updates_are_counted_and_said(caplog):
  """Rewards beyond any loss: nothing is learned, and the run says so."""
  config = helpers.small_config("stacx", max_gradient_norm=40.0)
  bad = (
    sample._replace(
      trajectory=sample.trajectory._replace(
        reward=1e20 * sample.trajectory.reward
      )
    )
    for sample in samples(config)
  )
  rows = []
  learner = make(
    config, iterator=bad, write_row=rows.append, log_every_seconds=0.0
  )
  before = learner.save()
  for _ in range(3):
    learner.step()
  after = learner.save()
  jax.tree_util.tree_map(np.testing.assert_array_equal, before[:4], after[:4])
  assert [row["skipped_updates"] for row in rows] == [1, 2, 3]
  warnings = [r.getMessage() for r in caplog.records if "skipped" in r.msg]
  assert len(warnings) == 1
  assert warnings[0].startswith("1 of 1 updates were skipped")
