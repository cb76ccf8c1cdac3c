import fcntl
import io
import os
import pty
import re
import select
import struct
import termios

import pytest

from programs import evaluate
from programs.launch import progress
from programs.nodes import rate


class Terminal:
  """A pseudo-terminal, and what was written to it."""

  def __init__(self, columns):
    self._reader, writer = pty.openpty()
    self.stream = os.fdopen(writer, "w")
    self.resize(columns)

  def resize(self, columns):
    size = struct.pack("HHHH", 24, columns, 0, 0)
    fcntl.ioctl(self.stream, termios.TIOCSWINSZ, size)

  def lines(self):
    """Returns what was shown one after the other."""
    self.stream.flush()
    data = b""
    while select.select([self._reader], [], [], 0)[0]:
      data += os.read(self._reader, 2**16)
    text = data.decode()
    return [line for line in re.split("[\r\n]+", text) if line]


@pytest.fixture
def terminal():
  return Terminal(80)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
  monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0.0)


STATUS = {
  "steps": 123_456_789, "budget": 200_000_000, "rate": 12_345.6,
  "return": -1234.56, "evaluation": 12345.67,
  "evaluation_cut_off": (0, 0), "finished": False,
}


@pytest.mark.parametrize("columns", [80, 40, 10])
@pytest.mark.parametrize(
  ("status", "describe"),
  [
    (STATUS, None),
    ((10**5, 10**6, 10**10, 1e6), evaluate._describe_progress),
    (None, lambda _: ["3/10 runs done", "running: " + "a run, " * 30]),
    (None, lambda _: ["a long name " * 30]),
  ],
)
def test_no_line_is_wider_than_the_terminal(columns, status, describe):
  terminal = Terminal(columns)
  shown = progress.Progress(terminal.stream, describe)
  shown.show(status or {})
  shown.show(status or {})
  shown.close()
  lines = terminal.lines()
  assert len(lines) == 3
  assert all(0 < len(line) < columns for line in lines)


def test_the_most_important_parts_come_first(terminal):
  shown = progress.Progress(terminal.stream)
  shown.show(STATUS)
  terminal.resize(40)
  shown.show(STATUS)
  wide, narrow = terminal.lines()
  assert wide.startswith("123,456,789/200,000,000 steps (62%) | 1:43:20 left")
  assert "return -1234.6" in wide
  assert narrow.strip() == "123,456,789/200,000,000 steps (62%)"


def test_evaluations_of_which_episodes_were_cut_off_say_so():
  whole = progress.format_status(STATUS)
  assert "eval 12345.7" in whole
  cut_off = progress.format_status({**STATUS, "evaluation_cut_off": (3, 10)})
  assert "eval 12345.7 (3 of 10 cut off)" in cut_off


def test_the_rate_of_runs_side_by_side_is_that_of_all():
  status = {**STATUS, "steps": 100, "budget": 400, "rate": 20, "runs": 4}
  parts = progress.format_status(status)
  assert parts[:2] == ["4 × 100/400 steps (25%)", "0:01:00 left"]
  assert parts[-1] == "20/s"


def test_a_shorter_line_erases_a_longer_one(terminal):
  shown = progress.Progress(terminal.stream, lambda text: [text])
  shown.show("long " * 10)
  shown.show("short")
  first, second = terminal.lines()
  assert len(second) == len(first)
  assert second.strip() == "short"


def test_a_file_gets_whole_lines_further_and_further_apart(
  tmp_path, monkeypatch
):
  now = 1000.0
  monkeypatch.setattr(progress.time, "monotonic", lambda: now)
  with open(tmp_path / "log", "w") as file:
    shown = progress.Progress(file)
    for _ in range(24 * 3600):
      shown.show(STATUS)
      now += 1
  lines = (tmp_path / "log").read_text().splitlines()
  assert set(lines) == {" | ".join(progress.format_status(STATUS))}
  assert 24 * 12 <= len(lines) < 500


def test_the_time_left_is_right_from_the_second_update_on():
  now = 0.0
  measured = rate.MovingRate(clock=lambda: now)
  assert measured.per_second() is None
  now = 60.0  # Compilation.
  measured.add(100)
  assert measured.per_second() is None
  for update in range(1, 1000):
    now += 0.1
    measured.add(100 + 100 * update)
    assert measured.per_second() == pytest.approx(1000)


def test_a_rate_follows_what_changes():
  now = 0.0
  measured = rate.MovingRate(clock=lambda: now)
  total = 0
  for step in (10, 1000):
    for _ in range(61):
      now += 1
      total += step
      measured.add(total)
    assert measured.per_second() == pytest.approx(step)
  end = measured.per_second(ended=True)
  now += 300
  assert measured.per_second(ended=True) == end
  assert measured.per_second() < end / 5


@pytest.mark.parametrize("waiting,limit", [
  (["actor/0", "evaluator"], 300), (["actor/0", "actor/1"], 15),
])
def test_a_finished_run_names_what_it_waits_for(monkeypatch, waiting, limit):
  now = [100.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(progress, "_NOTE_SECONDS", 5.0)
  said = io.StringIO()
  nodes = progress.LastNodes(progress.Progress(said))
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
