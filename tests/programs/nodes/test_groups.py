"""The order in which groups of environments take turns."""

import pytest

from programs.nodes import groups


class Group:
  """Notes what is asked of it; its trajectories have two steps."""

  def __init__(self, name, notes, is_inferred):
    self.is_inferred = is_inferred
    self._name = name
    self._notes = notes
    self._steps = 2

  @property
  def completes(self):
    return self._steps == 1

  def infer(self, wait_for_variables):
    self._note("infer")

  def act(self):
    return self._note("act")

  def receive(self):
    return self._note("receive")

  def record(self):
    self._steps -= 1
    return self._note("record")

  def _note(self, call):
    self._notes.append(f"{call} {self._name}")
    return True


@pytest.mark.parametrize("is_inferred,turn", [
  # What its environments need to go on comes first.
  (True, ["receive A", "act B", "infer A", "record A"]),
  # While another group's inference is waited for, this one's has begun.
  (False, ["receive A", "infer A", "act B", "record A"]),
])
def test_one_group_steps_while_another_is_inferred_for(is_inferred, turn):
  notes = []
  both = [Group(name, notes, is_inferred) for name in "AB"]
  assert groups.make_trajectories(both, False, lambda: False)
  assert notes[:3] == ["infer A", "infer B", "act A"]
  assert notes[3:7] == turn
  # Nothing is begun that the next trajectories might do with newer parameters.
  assert notes[11:] == [
    "receive A", "act B", "record A", "receive B", "record B"
  ]


def test_a_group_alone_writes_while_it_is_inferred_for():
  notes = []
  assert groups.make_trajectories(
    [Group("A", notes, True)], False, lambda: False
  )
  assert notes == [
    "infer A", "act A", "receive A", "infer A", "record A", "act A",
    "receive A", "record A",
  ]
