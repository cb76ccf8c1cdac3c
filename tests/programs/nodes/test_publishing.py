import threading

import pytest

from programs.nodes.failures import EndedError
from programs.nodes.publishing import BackgroundPublisher


def test_publisher_tells_of_the_newest_state():
  states = [0]
  told = []
  busy, go_on = threading.Event(), threading.Event()

  def publish():
    told.append(states[-1])
    busy.set()
    assert go_on.wait(10)

  publisher = BackgroundPublisher(publish)
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
  publisher = BackgroundPublisher(lambda: told.append(1))
  publisher.close()
  assert told == [1]


def test_what_publishing_raises_is_not_lost():
  def publish():
    raise OSError("gone")

  publisher = BackgroundPublisher(publish)
  publisher.notify()
  publisher._thread.join(10)
  assert publisher.failed
  with pytest.raises(OSError, match="gone"):
    publisher.close()


def test_what_publishing_raises_at_the_end_is_no_error():
  def publish():
    raise EndedError

  publisher = BackgroundPublisher(publish)
  publisher.notify()
  publisher.close()
  assert not publisher.failed


def test_publisher_repeats_itself():
  told = threading.Semaphore(0)
  publisher = BackgroundPublisher(told.release, every_seconds=0.01)
  for _ in range(3):
    assert told.acquire(timeout=10)
  publisher.close()
