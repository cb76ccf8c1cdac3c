import pytest

from programs.nodes import counter as counter_lib
from programs.nodes import failures


class Clock:
  now = 100.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  monkeypatch.setattr(counter_lib, "_RESERVE_TIMEOUT_SECONDS", 0.0)
  return Clock()


def make(clock, budget=1000, max_ahead=30, **kwargs):
  counter = counter_lib.RunCounter(budget, max_ahead, clock=clock, **kwargs)
  counter.report_learner(0)
  return counter


def test_nothing_is_granted_before_the_learner_has_spoken(clock):
  counter = counter_lib.RunCounter(1000, 30, clock=clock)
  assert counter.reserve(0, "a", 0, 10) == "wait"
  counter.report_learner(40)
  assert counter.reserve(0, "a", 0, 10) == "go"
  assert counter.status()["steps"] == 40


def test_grants_are_bounded_by_the_learner(clock):
  counter = make(clock)
  assert [counter.reserve(0, "a", n, 10) for n in range(4)] == [
    "go", "go", "go", "wait"
  ]
  counter.report_learner(10)
  assert counter.reserve(0, "a", 3, 10) == "go"


def test_grants_are_bounded_by_the_budget(clock):
  counter = make(clock, budget=20)
  assert [counter.reserve(0, "a", n, 10) for n in range(3)] == [
    "go", "go", "wait"
  ]
  counter.finish()
  assert counter.reserve(0, "a", 2, 10) == "finished"
  # Also for one whose answer was lost.
  assert counter.reserve(0, "a", 1, 10) == "finished"


def test_what_the_learner_holds_back_is_granted_besides(clock):
  counter = make(clock, budget=20, held=10)
  assert [counter.reserve(0, "a", n, 10) for n in range(4)] == [
    "go", "go", "go", "wait"
  ]


def test_asking_again_takes_nothing_more(clock):
  counter = make(clock)
  for _ in range(9):
    assert counter.reserve(0, "a", 0, 10) == "go"
  assert counter.reserve(0, "a", 1, 10) == "go"
  assert counter.reserve(0, "a", 2, 10) == "go"
  assert counter.reserve(0, "a", 3, 10) == "wait"


def test_what_a_dead_actor_was_granted_is_granted_again(clock):
  counter = make(clock)
  assert counter.reserve(0, "a", 0, 10) == "go"
  assert counter.reserve(1, "b", 0, 10) == "go"
  assert counter.reserve(1, "b", 1, 10) == "go"
  assert counter.reserve(0, "c", 0, 10) == "go"
  assert counter.reserve(0, "c", 1, 10) == "wait"


def starve(counter, consumed=0, received=0, **kwargs):
  """Reports twice that the learner waits for data beside empty queues."""
  for _ in range(2):
    counter.report_learner(consumed, received=received, starving=True, **kwargs)


def test_no_wait_however_long_makes_what_is_queued_count_as_lost(clock):
  counter = make(clock)
  for item in range(3):
    assert counter.reserve(0, "a", item, 10) == "go"
  assert counter.reserve(0, "a", 3, 10) == "wait"
  for _ in range(100):
    # The learner is frozen, or compiles.
    clock.now += 60
    assert counter.reserve(0, "a", 3, 10) == "wait"
    counter.report_learner(0, queued=20)
    counter.report_learner(0, received=10, queued=20)


def test_what_was_lost_with_a_queue_is_granted_again(clock):
  counter = make(clock)
  for item in range(3):
    assert counter.reserve(0, "a", item, 10) == "go"
  assert counter.reserve(0, "a", 3, 10) == "wait"
  starve(counter)
  # All of it at once, not an item each time.
  for item in range(3, 6):
    assert counter.reserve(0, "a", item, 10) == "go"
  assert counter.reserve(0, "a", 6, 10) == "wait"


def test_what_an_actor_has_under_way_is_not_lost(clock):
  counter = make(clock, max_ahead=20)
  assert counter.reserve(0, "a", 0, 10) == "go"
  assert counter.reserve(1, "b", 0, 10) == "go"
  # The other one has delivered, and that was lost.
  assert counter.reserve(1, "b", 1, 10) == "wait"
  starve(counter)
  assert counter.reserve(1, "b", 1, 10) == "go"
  assert counter.reserve(1, "b", 2, 10) == "wait"


def test_what_comes_while_the_learner_looks_is_not_lost(clock):
  counter = make(clock, max_ahead=20)
  assert counter.reserve(0, "a", 0, 10) == "go"
  counter.report_learner(0, starving=True)
  assert counter.reserve(0, "a", 1, 10) == "go"
  counter.report_learner(0, starving=True)
  assert counter.reserve(0, "a", 2, 10) == "wait"


def test_an_actor_that_never_comes_back_does_not_stop_the_run(clock):
  counter = make(clock, budget=20, max_ahead=20)
  assert counter.reserve(0, "a", 0, 10) == "go"
  assert counter.reserve(1, "b", 0, 10) == "go"
  assert counter.reserve(1, "b", 1, 10) == "wait"
  clock.now += 29
  starve(counter, received=10)
  assert counter.reserve(1, "b", 1, 10) == "wait"
  clock.now += 2
  starve(counter, received=10)
  assert counter.reserve(1, "b", 1, 10) == "go"


def test_the_budget_is_exceeded_by_one_item_per_actor_at_most(clock):
  counter = make(clock, budget=20, max_ahead=20)
  assert counter.reserve(0, "a", 0, 10) == "go"
  assert counter.reserve(1, "b", 0, 10) == "go"
  clock.now += 60
  starve(counter)
  # Both come late, after others had been asked to make the same again.
  assert counter.reserve(2, "c", 0, 10) == "go"
  assert counter.reserve(3, "d", 0, 10) == "go"
  for number, life in enumerate("abcd"):
    assert counter.reserve(number, life, 1, 10) == "wait"
  counter.report_learner(0, received=20, queued=20)
  assert counter.reserve(0, "a", 1, 10) == "wait"


def test_a_new_counter_learns_what_is_queued(clock):
  counter = counter_lib.RunCounter(1000, 30, clock=clock)
  counter.report_learner(100, received=110, queued=None)
  assert counter.reserve(0, "a", 7, 10) == "wait"
  counter.report_learner(100, received=110, queued=10)
  assert counter.reserve(0, "a", 7, 10) == "go"
  assert counter.reserve(0, "a", 8, 10) == "wait"


def test_actors_hear_that_the_run_is_finished_wherever_they_are(clock):
  counter = make(clock)
  assert not counter.report_episodes([])
  counter.finish()
  assert counter.report_episodes([])


def test_what_the_learner_dropped_is_made_again(clock):
  counter = make(clock, budget=30)
  for item in range(3):
    assert counter.reserve(0, "a", item, 10) == "go"
  counter.report_learner(10, dropped=10)
  counter.report_learner(10, dropped=10)
  assert counter.reserve(0, "a", 3, 10) == "go"
  assert counter.reserve(0, "a", 4, 10) == "wait"


def test_a_learner_that_began_anew_gets_what_it_needs(clock):
  counter = make(clock, max_ahead=20)
  for item in range(10):
    assert counter.reserve(0, "a", item, 10) == "go"
    counter.report_learner(10 * item + 10)
  clock.now += 10
  # Nothing was queued.
  counter.report_learner(40, received=40)
  status = counter.status()
  assert status["steps"] == 40
  # The rate is measured anew.
  assert status["rate"] is None
  assert counter.reserve(0, "a", 10, 10) == "go"
  assert counter.reserve(0, "a", 11, 10) == "go"
  assert counter.reserve(0, "a", 12, 10) == "wait"


def test_what_is_queued_stays_when_the_learner_begins_anew(clock):
  counter = make(clock, max_ahead=20)
  for item in range(3):
    assert counter.reserve(0, "a", item, 10) == "go"
    counter.report_learner(10 * (item > 0), received=10 * item, queued=10)
  assert counter.reserve(0, "a", 3, 10) == "wait"
  counter.report_learner(0, received=0, queued=10)
  assert counter.reserve(0, "a", 3, 10) == "go"
  assert counter.reserve(0, "a", 4, 10) == "wait"


def test_only_progress_is_an_update(clock):
  counter = make(clock)
  clock.now += 50
  counter.report_learner(0)
  assert counter.status()["seconds_since_update"] == 50
  counter.report_learner(10)
  assert counter.status()["seconds_since_update"] == 0


def test_hosts_are_known_and_told(clock):
  counter = make(clock, run={"agent": "stac"})
  assert counter.describe() == {"agent": "stac"}
  counter.status("east")
  clock.now += 7
  counter.status("west")
  assert counter.status()["hosts"] == {"east": 7, "west": 0}
  counter.finish()
  assert counter.status("east")["hosts_to_tell"] == ["west"]


def test_the_older_launcher_of_a_host_has_no_rival(clock):
  counter = make(clock)
  assert not counter.status("east", "a")["rival"]
  clock.now += 1
  assert not counter.status("west", "b")["rival"]
  assert counter.status("east", "c")["rival"]
  assert not counter.status("east", "a")["rival"]
  clock.now += 4
  # The older one is gone.
  assert not counter.status("east", "c")["rival"]


def test_failures_within_a_time(clock):
  limit = failures.FailureLimit(2, 60, clock)
  assert limit.add() and limit.add()
  clock.now += 61
  assert limit.add() and limit.add()
  assert not limit.add()
  assert limit.count == 3


def test_the_rate_stays_when_the_run_is_done(clock):
  counter = make(clock)
  clock.now += 60  # Compilation.
  for steps in range(10, 110, 10):
    clock.now += 1
    counter.report_learner(steps)
  assert counter.status()["rate"] == pytest.approx(10)
  counter.finish()
  clock.now += 1000
  assert counter.status()["rate"] == pytest.approx(10)
