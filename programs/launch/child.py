"""Starts processes that end when the one that started them does.

This file is also the program that prepares such a process and then becomes its
command: between fork and exec (`preexec_fn`), nothing is safe in a process that
has threads, and JAX warns.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence

_SET_PARENT_DEATH_SIGNAL = 1


def command(
  arguments: Sequence[str], cores: Iterable[int] = ()
) -> list[str]:
  """Returns the command line of a process that ends when this one does.

  Args:
    arguments: its own command line.
    cores: that it may use, instead of those of this process.
  """
  return [
    # Loads no packages.
    sys.executable, "-IS", __file__, str(os.getpid()),
    ",".join(map(str, cores)), *arguments,
  ]


def main(parent: str, cores: str, *arguments: str):
  """Becomes a command that receives SIGTERM when its parent dies."""
  if cores:
    os.sched_setaffinity(0, map(int, cores.split(",")))
  ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
  if os.getppid() == int(parent):  # It may be dead already.
    os.execvp(arguments[0], arguments)


if __name__ == "__main__":
  main(*sys.argv[1:])
  sys.exit(1)
