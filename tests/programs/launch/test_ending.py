import os
import signal
import subprocess
import sys
import textwrap

import pytest

from acme_stac import environments
from acme_stac.environments import catch
from programs.launch import ending
from tests.support import runs


def run(code):
  return subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)],
    capture_output=True, text=True, timeout=120, check=False,
  )


def test_a_first_signal_is_answered_and_a_second_ends_the_process():
  found = run("""
    import os, signal, time
    from programs.launch import ending
    with ending.StopRequest("Saving.", lambda: print("killed", flush=True)):
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(ending._SAME_SECONDS + 0.5)
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(100)
  """)
  assert found.returncode == 128 + signal.SIGINT
  assert "Saving. Ctrl-C again stops at once." in found.stderr
  assert found.stdout == "killed\n"


def test_a_signal_ends_a_process_that_has_nothing_to_save():
  """Whatever the main thread does, such as compile."""
  found = run("""
    import ctypes, os, signal
    from programs.launch import ending
    with ending.StopRequest() as stop:
      stop.has_work = False
      os.kill(os.getpid(), signal.SIGTERM)
      while True:
        ctypes.CDLL(None).sleep(100)
  """)
  assert found.returncode == 128 + signal.SIGTERM
  assert "Stopped. The same command goes on." in found.stderr


def test_a_full_disk_does_not_change_the_exit_code():
  with open("/dev/full", "w") as full:
    found = subprocess.run(
      [sys.executable, "-c", textwrap.dedent("""
        import sys
        from programs.launch import ending
        ending.say("lost")
        ending.say("lost too")
        print("lost as well", file=sys.stderr)
        sys.exit(69)
      """)],
      stderr=full, timeout=120, check=False,
    )
  assert found.returncode == 69


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_prints_to_a_full_disk_do_nothing(stream):
  with open("/dev/full", "w") as full:
    found = subprocess.run(
      [sys.executable, "-c", textwrap.dedent(f"""
        import sys
        from programs.launch import ending, progress
        ending.drop_lost_output()
        print("lost", file=sys.{stream}, flush=True)
        progress.Progress(sys.{stream}).note("lost too")
        print("lost at the end", file=sys.{stream})
      """)],
      **{stream: full}, timeout=120, check=False,
    )
  assert found.returncode == 0


def test_prints_come_out_where_there_is_room():
  found = run("""
    import sys
    from programs.launch import ending
    ending.drop_lost_output()
    print("αβ", "\\udcff")
    print("error", file=sys.stderr)
  """)
  assert (found.stdout, found.stderr) == ("αβ \\udcff\n", "error\n")


def test_what_a_process_started_ends_with_it():
  found = run("""
    import multiprocessing, subprocess, time
    from programs.launch import ending
    ending.leave_no_children()
    other = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=time.sleep, args=(1000,))
    worker.start()
    print(other.pid, worker.pid)
  """)
  assert found.returncode == 0, found.stderr
  for pid in map(int, found.stdout.split()):
    runs.wait_until_gone(pid)


def test_a_session_ends_with_all_its_members():
  leader = subprocess.Popen(
    ["sh", "-c", "sleep 1000 & echo $!"],
    start_new_session=True, stdout=subprocess.PIPE, text=True,
  )
  member = int(leader.stdout.readline())
  leader.wait()
  assert os.getsid(member) == leader.pid
  ending.end_session(leader.pid)
  runs.wait_until_gone(member)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_environment_that_ends_the_program_has_failed(error):
  class Ends(catch.Catch):
    def reset(self):
      raise error

  guarded = environments.GuardedEnvironment(Ends(1, 0))
  with pytest.raises(environments.EnvironmentFailedError) as raised:
    guarded.reset()
  assert type(error).__name__ in str(raised.value)
