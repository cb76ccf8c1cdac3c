"""Nodes that are not a run's: small processes, which die as they are told."""

import io
import sys
import threading

import pytest

from programs.launch import ending, hosts, node_process, supervision
from programs.launch.ending import NodeDiedError
from programs.launch.modes import RESTARTED
from programs.launch.node_process import Node
from programs.launch.progress import Progress
from programs.nodes.counter import RunCounter
from programs.nodes.failures import FailureLimit
from tests.support import runs


class Run:
  """Nodes under supervision, until they are not worth it any more."""

  def __init__(self, tmp_path, **codes):
    self.said = io.StringIO()
    self.counter = RunCounter(100, 100)
    self.counter.report_learner(0)
    self.nodes = [
      Node(name, [sys.executable, "-c", code], {}, tmp_path / f"{name}.log")
      for name, code in codes.items()
    ]
    self._supervisor = supervision.Supervisor(
      runs.make_experiment(tmp_path),
      self.counter,
      Progress(self.said),
      hosts.OneHost(),
      ending.StopRequest(),
    )

  def supervise(self, restart):
    for node in self.nodes:
      node.start()
    try:
      self._supervisor.run(self.nodes, RESTARTED[restart])
    finally:
      supervision.stop_nodes(self.nodes)
      for node in self.nodes:
        node.reason.close()
    assert not any(node.running for node in self.nodes)


FOREVER = "import time; time.sleep(1000)"
DIE = "import os, signal; print('last words', flush=True);" + (
  "os.kill(os.getpid(), signal.SIGKILL)"
)


@pytest.mark.parametrize("name,restart", [
  ("learner", "workers"), ("replay", "workers"), ("actor", "none"),
])
def test_what_is_not_restarted_ends_the_run_with_its_name(
  tmp_path, name, restart
):
  run = Run(tmp_path, other=FOREVER, **{name: DIE})
  with pytest.raises(NodeDiedError) as died:
    run.supervise(restart)
  assert str(died.value).startswith(
    f"Node {name} was killed by SIGKILL (by hand, or because memory ran out),"
    f" so the run was stopped. Its last lines ({tmp_path / name}.log):"
  )
  assert "  | last words" in str(died.value)
  assert not run.said.getvalue().count("started again")


def test_a_node_that_dies_again_and_again_ends_the_run(tmp_path):
  run = Run(tmp_path, actor="print('last words'); raise SystemExit(3)")
  run.nodes[0].deaths = FailureLimit(1, 600.0)
  with pytest.raises(NodeDiedError) as died:
    run.supervise("workers")
  assert "code 3, its death number 2 within 600 s, so the run was" in (
    str(died.value)
  )
  said = run.said.getvalue()
  assert "Node actor ended with exit code 3; it is started again (1 of" in said
  assert "It had said:\n  | --- actor" in said and "  | last words" in said


def test_a_hopeless_node_is_not_restarted(tmp_path):
  run = Run(tmp_path, actor=f"raise SystemExit({node_process.EXIT_HOPELESS})")
  with pytest.raises(NodeDiedError, match="exit code 69, so the run"):
    run.supervise("all")
  assert "started again" not in run.said.getvalue()


def test_a_restarted_node_goes_on_and_the_run_ends_when_it_is_finished(
  tmp_path,
):
  marker = tmp_path / "marker"
  once = f"""
import pathlib, sys, time
marker = pathlib.Path({str(marker)!r})
if not marker.exists():
  marker.touch()
  sys.exit(4)
pathlib.Path({str(tmp_path / 'again')!r}).touch()
"""
  run = Run(tmp_path, actor=once, counter=FOREVER)

  def finish():
    runs.wait_for(lambda: (tmp_path / "again").exists(), 60)
    run.counter.finish()

  finishing = threading.Thread(target=finish)
  finishing.start()
  run.supervise("workers")
  finishing.join()
  assert run.said.getvalue().count("started again") >= 1


def test_what_a_dead_node_had_started_goes_too(tmp_path):
  pid = tmp_path / "pid"
  starter = f"""
import pathlib, subprocess
child = subprocess.Popen(['sleep', '1000'])
pathlib.Path({str(pid)!r}).write_text(str(child.pid))
raise SystemExit(5)
"""
  run = Run(tmp_path, actor=starter)
  with pytest.raises(NodeDiedError):
    run.supervise("none")
  runs.wait_until_gone(int(pid.read_text()))
