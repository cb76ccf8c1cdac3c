"""What the process of a node does around the node."""

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from programs.launch import ending
from programs.nodes.failures import EndedError, HopelessError

# In a node's environment: its name, by which tools tell the processes apart.
NODE_NAME = "ACME_STAC_NODE"
# In a node's environment: a descriptor that takes why it is hopeless.
REASON_FILE = "ACME_STAC_REASON_FILE"
# Exit code of a node that no new process would do better.
EXIT_HOPELESS = 69


def is_node_process() -> bool:
  """Returns whether this process was started for a single node."""
  return NODE_NAME in os.environ


def run(make: Callable[[], Any]):
  """Makes and runs the one node of this process."""
  # Its log may be on a full disk.
  ending.drop_lost_output()
  ending.leave_no_children(ending.end_session)
  try:
    make().run()
  except EndedError:
    pass
  except HopelessError as error:
    ending.say(str(error))
    if REASON_FILE in os.environ:
      with contextlib.suppress(OSError):
        os.write(int(os.environ[REASON_FILE]), str(error).encode())
    # Nothing may fail from here on, or say more.
    os._exit(EXIT_HOPELESS)
  finally:
    # Launchpad's alarm would kill a process that takes a second to end.
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def end_if_stuck(seconds: float):
  """Ends this process, with its traceback, if no Python runs for so long.

  No thread of Python's notices an environment that hangs in foreign code and
  does not release Python's lock.
  """

  def put_off():
    while True:
      faulthandler.dump_traceback_later(seconds, exit=True)
      time.sleep(min(5.0, seconds / 3))

  threading.Thread(target=put_off, daemon=True, name="stuck").start()
