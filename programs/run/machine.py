"""What a run needs of its machine; the standard library does for this file."""

import argparse
import ctypes
import fcntl
import hashlib
import importlib
import os
import pathlib
import platform
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import BinaryIO

from acme_stac.evaluation.text import printable
from programs.run.errors import UserError

# What every run imports, in the order in which errors explain most.
_MODULES = (
  "numpy",
  "jax",
  "haiku",
  "ml_collections",
  "gymnasium",
  "ale_py",
  "reverb",
  "launchpad",
  "courier",
  "acme",
)


def path(text: str) -> pathlib.Path:
  """Returns a path for argparse; an empty one would be where the user is."""
  if not text:
    raise argparse.ArgumentTypeError("is empty: name a directory")
  try:
    return pathlib.Path(text).expanduser()
  except RuntimeError as error:  # A user who does not exist.
    raise argparse.ArgumentTypeError(str(error)) from error


def make_directory(directory: pathlib.Path, flag: str):
  """Makes a directory of results.

  Args:
    directory: with those above it.
    flag: what the user chose it with.

  Raises:
    UserError: if nothing can be written to it.
  """
  try:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
      pass
  # A name with a NUL, or of no text, is a ValueError.
  except (OSError, ValueError) as error:
    raise UserError(
      f"Nothing can be written to {directory}: {error}. Mend that, or choose"
      f" another {flag}."
    ) from error


def check_files(files: Iterable[pathlib.Path], flag: str):
  """Checks that files can be written, before the work that leads to them.

  Args:
    files: that will be written or replaced.
    flag: what the user chose their place with.

  Raises:
    UserError: if something else than a regular file is in the way of one, such
      as a directory, a FIFO, or a link that leads nowhere; or if one that
      exists cannot be written.
  """
  for file in files:
    try:
      if not os.path.lexists(file):
        continue
      if not file.is_file():
        reason = "it is not a regular file"
      elif not os.access(file, os.W_OK):
        reason = "permission denied"
      else:
        continue
    except (OSError, ValueError) as error:
      reason = str(error)
    raise UserError(
      f"{file} cannot be written: {reason}. Remove it, or choose another"
      f" {flag}."
    )


def use_compilation_cache():
  """Keeps what JAX compiles for later runs of this user, in every process.

  Must come before JAX is imported. JAX_COMPILATION_CACHE_DIR, if set, stays in
  force; an empty one is no cache.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  # Hosts that share a home directory must not share code for other processors.
  directory = (
    pathlib.Path(home).expanduser() / "acme_stac" / f"jax-{_processor()}"
  )
  try:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  except OSError:
    return  # Every run compiles, then.
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
  # Inference compiles faster than the default limit of a second, but every
  # process of a run does it.
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _processor() -> str:
  """Returns a short name of what this machine's code is compiled for."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:
    text = ""
  features = sorted({
    line for line in text.splitlines()
    if line.startswith(("model name", "flags", "Features"))
  })
  kind = "\n".join([platform.machine(), *features])
  return hashlib.sha256(kind.encode()).hexdigest()[:12]


def lock(directory: pathlib.Path, patience_seconds: float = 40.0) -> BinaryIO:
  """Takes the lock of a work directory, for this process and what inherits it.

  A run that has just been killed may need some seconds to end, so this waits.
  Whatever is in the directory may have changed by the time that it returns.

  Args:
    directory: that has the lock.
    patience_seconds: how long to wait for another run.

  Returns:
    The open file that holds the lock.

  Raises:
    UserError: if another run has it, or the lock's file cannot be opened.
  """
  path = directory / ".lock"
  check_files([path], "--workdir")
  deadline = time.monotonic() + patience_seconds
  said = False
  while True:
    try:
      file = open(path, "ab")  # noqa: SIM115
    except OSError as error:
      raise UserError(
        f"{path} cannot be opened ({error.strerror}). Choose another --workdir."
      ) from error
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      # The run that was waited for may have been removed with its directory.
      if _is_open_as(path, file):
        return file
    except BlockingIOError as error:
      if time.monotonic() > deadline:
        file.close()
        raise UserError(
          f"Another run uses {directory}. Stop it, or choose another --workdir."
        ) from error
      if not said:
        said = True
        print(
          f"Waiting for another run in {printable(directory)} to end ...",
          flush=True,
        )
    except OSError:
      return file  # Not every file system has locks.
    file.close()
    time.sleep(0.2)


def _is_open_as(path: pathlib.Path, file: BinaryIO) -> bool:
  """Returns whether an open file is the one at a path."""
  try:
    return os.path.samestat(path.stat(), os.fstat(file.fileno()))
  except FileNotFoundError:
    return False


def check_ports(ports: Iterable[int]):
  """Raises UserError if any of these is in use on this machine."""
  for port in ports:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
      # Reverb would share a port with another server of its kind, and its
      # trajectories too; this does not.
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        listener.bind(("::", port))
        listener.listen()
      except OSError as error:
        raise UserError(
          f"Port {port} cannot be listened on ({error.strerror}). End what uses"
          " it, or give the learner's host another port in the cluster file."
        ) from error


# Of linux/sched.h and linux/if.h.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def isolate_network() -> bool:
  """Moves this process into a network of its own, the loopback interface only.

  Reverb's and courier's servers listen on every interface that there is,
  without authentication. The processes of a local run need no other than
  loopback, so they get no other: nobody from outside reaches them, nor do other
  users of this machine. Needs a process of one thread.

  Returns:
    Whether the kernel allows that.
  """
  # A process cannot go back, so another one tries first.
  child = os.fork()
  if not child:
    try:
      _enter_own_network()
    except OSError:
      os._exit(1)
    os._exit(0)
  if os.waitpid(child, 0)[1]:
    return False
  _enter_own_network()
  return True


def _enter_own_network():
  libc = ctypes.CDLL(None, use_errno=True)
  user, group = os.getuid(), os.getgid()
  # Root may without a user namespace, and keeps what it may besides.
  if libc.unshare(_CLONE_NEWNET):
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
      raise OSError(ctypes.get_errno(), "unshare")
    # The same user inside as outside.
    pathlib.Path("/proc/self/setgroups").write_text("deny")
    pathlib.Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    pathlib.Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    request = struct.pack("16sh14x", b"lo", _IFF_UP)
    fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)


def check():
  """Raises UserError where the distributed program cannot run at all."""
  if sys.version_info[:2] != (3, 10) or sys.platform != "linux":
    version = ".".join(map(str, sys.version_info[:3]))
    raise UserError(
      f"This is Python {version} on {sys.platform}, but Launchpad and Reverb"
      " exist for Python 3.10 on Linux x86-64 only. 'make setup' makes such an"
      " environment in .venv; run .venv/bin/python -m programs.train."
    )
  for module in _MODULES:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      raise UserError(
        f"{error}. 'make setup' installs everything in .venv; run"
        " .venv/bin/python -m programs.train."
      ) from error
    except ImportError as error:
      raise UserError(
        f"{module} cannot be loaded: {error}.\nIf this names a file such as"
        " libX.so.1, a system library is missing: install the package of your"
        " distribution that has it (on Debian and Ubuntu, 'apt-file search"
        " libX.so.1' names it). Otherwise the versions do not fit: 'make setup'"
        " installs those that do."
      ) from error
