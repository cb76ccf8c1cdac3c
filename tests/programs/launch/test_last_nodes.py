import io

import pytest

from programs.launch import last_nodes
from programs.launch.progress import Progress


@pytest.mark.parametrize("waiting,limit", [
  (["actor/0", "evaluator"], 300), (["actor/0", "actor/1"], 15),
])
def test_a_finished_run_names_what_it_waits_for(monkeypatch, waiting, limit):
  now = [100.0]
  monkeypatch.setattr(last_nodes.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(last_nodes, "_NOTE_SECONDS", 5.0)
  said = io.StringIO()
  nodes = last_nodes.LastNodes(Progress(said))
  assert not nodes.ended(waiting)
  assert not said.getvalue()
  now[0] += 10
  assert not nodes.ended(waiting)
  note = said.getvalue()
  assert f"up to {limit - 10} s more for {', '.join(waiting)}" in note
  now[0] += limit
  assert nodes.ended(waiting)
  late = said.getvalue()[len(note):]
  assert f"{limit} s after the last update" in late
  assert ", ".join(waiting) in late
  for text in (note, late):
    assert ("evaluation" in text) == ("evaluator" in waiting)
  assert nodes.ended([])
