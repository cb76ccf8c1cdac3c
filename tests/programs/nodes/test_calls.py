import time

import courier
import pytest

from programs.nodes import calls
from programs.nodes.calls import StatusCode, StatusNotOk
from programs.nodes.failures import EndedError, NotReadyError, SilentError


def status(code):
  """An error as courier's clients raise them."""
  error = StatusNotOk("whatever it says")
  error.code = code
  return error


def answers(*results):
  results = iter(results)

  def call():
    result = next(results)
    if isinstance(result, Exception):
      raise result
    return result

  return call


def test_a_silent_node_is_called_again():
  call = answers(
    status(StatusCode.DEADLINE_EXCEEDED), status(StatusCode.UNAVAILABLE), 3
  )
  assert calls.patiently(call, "it", lambda: False, 10.0) == 3


def test_what_is_not_ready_yet_is_called_again():
  call = answers(NotReadyError("not yet"), 4)
  assert calls.patiently(call, "it", lambda: False, 10.0) == 4


def test_courier_has_a_code_of_its_own_for_errors_of_methods():
  def fail():
    raise ValueError("mine")

  server = courier.Server("test")
  server.Bind("fail", fail)
  server.Start()
  client = calls.PatientClient(
    courier.Client(server.address, call_timeout=10), "it", lambda: False, 60.0
  )
  with pytest.raises(StatusNotOk, match="mine"):
    client.fail()
  server.Stop()


def test_an_error_of_the_node_itself_is_an_answer():
  error = status(StatusCode.INVALID_ARGUMENT)
  with pytest.raises(StatusNotOk):
    calls.patiently(answers(error, 4), "it", lambda: False, 10.0)


def test_patience_ends():
  def call():
    raise status(StatusCode.DEADLINE_EXCEEDED)

  started = time.monotonic()
  with pytest.raises(SilentError, match="The queue has not answered"):
    calls.patiently(call, "The queue", lambda: False, 0.3)
  assert 0.3 < time.monotonic() - started < 5


def test_nobody_waits_at_the_end():
  call = answers(status(StatusCode.UNAVAILABLE), 1)
  with pytest.raises(EndedError):
    calls.patiently(call, "it", lambda: True, 10.0)


def test_patient_client():
  class Client:
    tries = 0

    def add(self, a, b):
      self.tries += 1
      if self.tries < 3:
        raise status(StatusCode.DEADLINE_EXCEEDED)
      return a + b

  patient = calls.PatientClient(Client(), "it", lambda: False, 10.0)
  assert patient.add(1, 2) == 3
