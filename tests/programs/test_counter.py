import pytest

from programs import counter as counter_lib
from programs import failures


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


def test_what_was_lost_on_its_way_does_not_stop_the_run(clock):
  counter = make(clock)
  for item in range(3):
    assert counter.reserve(0, "a", item, 10) == "go"
  clock.now += 29
  assert counter.reserve(0, "a", 3, 10) == "wait"
  clock.now += 2
  # All of it at once, not an item each time.
  for item in range(3, 6):
    assert counter.reserve(0, "a", item, 10) == "go"
  assert counter.reserve(0, "a", 6, 10) == "wait"


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
  counter.report_learner(40)
  status = counter.status()
  assert status["steps"] == 40
  # The rate is measured anew.
  assert status["rate"] is None
  assert counter.reserve(0, "a", 10, 10) == "go"
  assert counter.reserve(0, "a", 11, 10) == "go"
  assert counter.reserve(0, "a", 12, 10) == "wait"


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
