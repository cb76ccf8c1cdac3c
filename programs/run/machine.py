"""Checks and sets up the host of a run."""

import ctypes
import fcntl
import hashlib
import importlib
import importlib.util
import os
import pathlib
import platform
import resource
import socket
import struct
import sys
from collections.abc import Iterable

from programs.run.errors import UserError

# Imported by every run and, below, by distributed runs; ordered so that the
# most informative error comes first.
_MODULES = (
  "numpy", "jax", "haiku", "ml_collections", "gymnasium", "ale_py"
)
_DISTRIBUTED_MODULES = ("reverb", "launchpad", "courier", "acme")
# The command that sets up the stack of this Python, and its environment.
_SETUP, _ENVIRONMENT = (
  ("make setup", ".venv") if sys.version_info[:2] == (3, 10)
  else ("make setup STACK=current", ".venv-current")
)


def allow_open_files(number: int):
  """Lets this process have so many files open, as far as the host allows."""
  allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  if most != resource.RLIM_INFINITY:
    number = min(number, most)
  if allowed != resource.RLIM_INFINITY and allowed < number:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, most))


def has_distributed_layer() -> bool:
  """Returns whether Launchpad, Reverb and Acme are installed."""
  try:
    return all(map(importlib.util.find_spec, _DISTRIBUTED_MODULES))
  except ImportError:  # Raised by an import hook that blocks them.
    return False


def check(distributed: bool = True):
  """Raises UserError if this machine cannot execute a run.

  Args:
    distributed: whether the run needs Launchpad, Reverb and Acme.
  """
  if not distributed:
    _check_modules(_MODULES)
    return
  if sys.version_info[:2] != (3, 10) or sys.platform != "linux":
    version = ".".join(map(str, sys.version_info[:3]))
    raise UserError(
      f"This is Python {version} on {sys.platform}, but Launchpad and Reverb"
      " exist for Python 3.10 on Linux x86-64 only. --launch=colocated, serial"
      " and on_device need neither; 'make setup' makes an environment with both"
      " in .venv."
    )
  _check_modules(_MODULES + _DISTRIBUTED_MODULES)


def _check_modules(modules: Iterable[str]):
  for module in modules:
    try:
      importlib.import_module(module)
    except ModuleNotFoundError as error:
      raise UserError(
        f"{error}. '{_SETUP}' installs everything in {_ENVIRONMENT}; run"
        f" {_ENVIRONMENT}/bin/python -m programs.train."
      ) from error
    except ImportError as error:
      raise UserError(
        f"{module} cannot be loaded: {error}.\nIf this names a file such as"
        " libX.so.1, a system library is missing: install the package of your"
        " distribution that has it (on Debian and Ubuntu, 'apt-file search"
        f" libX.so.1' names it). Otherwise the versions do not fit: '{_SETUP}'"
        " installs those that do."
      ) from error


def use_compilation_cache():
  """Makes JAX cache compiled code for later runs of this user.

  Must be called before JAX is imported; also applies to child processes.
  JAX_COMPILATION_CACHE_DIR takes precedence if set; if it is empty, nothing is
  cached.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  # Hosts with different processors may share the home directory.
  name = f"jax-{_processor()}"
  try:
    directory = pathlib.Path(home).expanduser() / "acme_stac" / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # RuntimeError: there is no home directory.
    return  # Runs work without a cache.
  os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
  # Inference compiles in less than a second, the default minimum, but every
  # process of a run compiles it.
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _processor() -> str:
  """Returns a short identifier of the processor's kind."""
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


def check_ports(ports: Iterable[int]):
  """Raises UserError if any of these ports is in use on this machine."""
  for port in ports:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
      # Fails if another server uses the port. Two Reverb servers would share
      # it, and trajectories with it.
      listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      try:
        listener.bind(("::", port))
        listener.listen()
      # OverflowError: 65535 is the last port.
      except (OSError, OverflowError) as error:
        raise UserError(
          f"Cannot listen on port {port} ({error}). End the program that uses"
          " it, or give the learner's host another port in the cluster file."
        ) from error


# From linux/sched.h and linux/if.h.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def isolate_network() -> bool:
  """Moves this process into a network namespace with a loopback interface only.

  The servers of Reverb and courier listen on every interface, without
  authentication. The processes of a local run need only loopback. In their own
  namespace nobody else can reach them, not even other users of this machine.
  Must be called while the process has a single thread.

  Returns:
    Whether the kernel allows it.
  """
  # Entering a namespace cannot be undone, so a child process tries it first.
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
  # Root needs no user namespace, and would lose other rights in one.
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
