"""How every command runs: exit codes for success, failure and user errors."""

import signal
import sys
from collections.abc import Callable
from typing import Any

from programs.launch import ending
from programs.run import errors


def run(main: Callable[[list[str]], int]):
  """Runs a command with the arguments of this process, and exits.

  The exit code is what `main` returns, 2 after a user's error, which is
  printed, and 130 or 143 after SIGINT or SIGTERM.

  Args:
    main: takes the arguments, without the program's name; returns an exit code.
  """
  end = ending.QuickExit()
  signal.signal(signal.SIGTERM, _interrupt)
  try:
    code = main(sys.argv[1:])
  except SystemExit as helped:  # By --help.
    end.code = int(bool(helped.code))
    raise
  except KeyboardInterrupt as interrupt:
    ending.say("\nStopped.")
    (number,) = interrupt.args or (signal.SIGINT,)
    code = 128 + number
  except errors.UserError as error:
    code = errors.report_error(error)
  end.code = code
  sys.exit(code)


def _interrupt(number: int, unused_frame: Any):
  raise KeyboardInterrupt(number)
