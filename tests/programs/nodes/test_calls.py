import threading
import time

import pytest

from programs.nodes import calls


class StatusNotOk(Exception):  # noqa: N818  As courier calls it.
  pass


def answers(*results):
  results = iter(results)

  def call():
    result = next(results)
    if isinstance(result, Exception):
      raise result
    return result

  return call


def test_a_silent_node_is_called_again():
  call = answers(StatusNotOk("Deadline Exceeded"), StatusNotOk("gone"), 3)
  assert calls.patiently(call, "it", lambda: False, 10.0) == 3


def test_what_is_not_ready_yet_is_called_again():
  call = answers(calls.NotReadyError("not yet"), 4)
  assert calls.patiently(call, "it", lambda: False, 10.0) == 4


def test_an_error_of_the_node_itself_is_an_answer():
  error = StatusNotOk("Python exception was raised on the server: ValueError")
  with pytest.raises(StatusNotOk):
    calls.patiently(answers(error, 4), "it", lambda: False, 10.0)


def test_patience_ends():
  def call():
    raise StatusNotOk("Deadline Exceeded")

  started = time.monotonic()
  with pytest.raises(calls.SilentError, match="The queue has not answered"):
    calls.patiently(call, "The queue", lambda: False, 0.3)
  assert 0.3 < time.monotonic() - started < 5


def test_nobody_waits_at_the_end():
  call = answers(StatusNotOk("gone"), 1)
  with pytest.raises(calls.EndedError):
    calls.patiently(call, "it", lambda: True, 10.0)


def test_patient_client():
  class Client:
    tries = 0

    def add(self, a, b):
      self.tries += 1
      if self.tries < 3:
        raise StatusNotOk("Deadline Exceeded")
      return a + b

  patient = calls.Patient(Client(), "it", lambda: False, 10.0)
  assert patient.add(1, 2) == 3


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


def test_publisher_repeats_itself():
  told = threading.Semaphore(0)
  publisher = calls.Publisher(told.release, every_seconds=0.01)
  for _ in range(3):
    assert told.acquire(timeout=10)
  publisher.close()
