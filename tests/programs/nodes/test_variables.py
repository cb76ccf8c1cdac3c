import pytest

from programs.nodes import variables
from programs.nodes.failures import NotReadyError


class Learner:
  def get_variables(self, names):
    values = {"policy": 4, "version": 3, "conditioning": 2, "other": 0}
    return [values[name] for name in names]


def test_variables_go_from_the_learner_over_the_server(monkeypatch):
  monkeypatch.setattr(variables, "_TIMEOUT_SECONDS", 0.01)
  server = variables.VariableServer()
  # Courier would log a traceback of what it raised.
  assert server.get_variables(["version"]) is None
  client = variables.VariableClient(server)
  with pytest.raises(NotReadyError):
    client.get_variables(["version"])
  sender = variables.VariableSender(server.put)
  assert sender(Learner()) == variables.newest_version(Learner()) == 3
  assert client.get_variables(["version", "policy"]) == [3, 4]
