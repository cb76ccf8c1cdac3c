"""Checks an installation and says what to do about what it lacks.

  python -m acme_stac.doctor

Every check runs in a process of its own: compiled packages that do not fit each
other end the process that loads them. The exit code is 1 if something that is
installed does not work.
"""

import argparse
import glob
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

_TIMEOUT_SECONDS = 180.0
_PACKAGE = "acme_stac"
# Checks that would only repeat that the compiled packages do not load.
_NEED_BINARIES = ("Reverb", "courier")
_REINSTALL = (
  "Install the versions that fit: 'make setup' in a clone of the project makes"
  " an environment with them."
)
# What the distributed program cannot do without, as it is installed: others
# may have modules of these names, and TensorFlow.
_DISTRIBUTED = ("dm-acme", "dm-launchpad-nightly", "dm-reverb")
# What these load must have the versions of the lock: they are compiled against
# TensorFlow's protobuf and NumPy, for instance, and do not say so themselves.
_COMPILED = ("dm-launchpad-nightly", "dm-reverb", "tensorflow-cpu")
_LOCK = pathlib.Path(__file__).parent.parent / "requirements.lock"


class Problem(Exception):  # noqa: N818 (it is not always an error)
  """What is wrong, in one line."""


class Check(NamedTuple):
  """Something that can be checked.

  Attributes:
    name: of the line.
    run: returns what was found, or raises whatever is wrong.
    advice: what to do then.
    needed: whether the installation is of no use without.
  """

  name: str
  run: Callable[[], str]
  advice: str
  needed: bool = True


def _python() -> str:
  return f"{platform.python_version()} on {platform.platform()}"


def _wrong_versions(extra: str | None) -> list[str]:
  """Returns the packages that do not have the version that is asked for."""
  from packaging.requirements import Requirement

  try:
    requirements = importlib.metadata.requires(_PACKAGE) or ()
  except importlib.metadata.PackageNotFoundError as error:
    raise Problem(
      "acme_stac itself is not installed here, only its folder is found, so"
      " versions cannot be compared"
    ) from error
  wrong = []
  for line in requirements:
    requirement = Requirement(line)
    of_extra = "extra ==" in line
    if of_extra != (extra is not None) or (
      requirement.marker is not None
      and not requirement.marker.evaluate({"extra": extra or ""})
    ):
      continue
    try:
      version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
      wrong.append(f"{requirement.name} is missing")
      continue
    if not requirement.specifier.contains(version, prereleases=True):
      wrong.append(f"{requirement.name} {version}, not {requirement.specifier}")
  return wrong


def _not_locked(names: Iterable[str]) -> list[str]:
  """Returns the packages whose versions are not those of the lock.

  Nothing can be said of an installation that has no lock beside it.

  Args:
    names: packages that are looked at, with all that they require.
  """
  if not _LOCK.is_file():
    return []
  pins = {
    _canonical(name): version
    for name, version in re.findall(
      r"^([\w.-]+)==([^\s;]+)", _LOCK.read_text(), re.MULTILINE
    )
  }
  wrong = []
  for name in sorted(_with_requirements(names)):
    version = importlib.metadata.version(name)
    if version != pins.get(name, version):
      wrong.append(f"{name} {version}, not {pins[name]}")
  return wrong


def _with_requirements(names: Iterable[str]) -> set[str]:
  """Returns installed packages and all that they require, directly or not."""
  from packaging.requirements import Requirement

  found: set[str] = set()
  waiting = [_canonical(name) for name in names]
  while waiting:
    name = waiting.pop()
    if name in found or not _is_installed(name):
      continue
    found.add(name)
    for line in importlib.metadata.requires(name) or ():
      requirement = Requirement(line)
      marker = requirement.marker
      if marker is None or marker.evaluate({"extra": ""}):
        waiting.append(_canonical(requirement.name))
  return found


def _canonical(name: str) -> str:
  from packaging.utils import canonicalize_name

  return canonicalize_name(name)


def _core() -> str:
  import jax

  from acme_stac import core

  if wrong := _wrong_versions(None):
    raise Problem("; ".join(wrong))
  row = jax.numpy.ones([2])
  value = core.leaky_vtrace(
    row, row, row, row, row, alpha_rho=1.0, alpha_c=1.0, lambda_=1.0
  )
  value.targets.block_until_ready()
  return f"acme_stac.core computes, with JAX {jax.__version__}"


def _devices() -> str:
  import jax

  devices = jax.devices()
  kinds = sorted({device.device_kind for device in devices})
  if glob.glob("/dev/nvidia[0-9]*") and devices[0].platform == "cpu":
    raise Problem("there is an NVIDIA GPU, but this JAX knows the CPU only")
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
  return (
    f"{len(devices)} × {', '.join(kinds)}; {os.cpu_count()} cores,"
    f" {memory:.0f} GiB"
  )


def _versions() -> str:
  if sys.version_info[:2] != (3, 10) or platform.machine() != "x86_64":
    raise Problem(
      "Launchpad and Reverb exist for Python 3.10 on Linux x86-64 only"
    )
  # Versions that fit although their own packages ask for others.
  wrong = [*_wrong_versions("distributed"), *_not_locked(_COMPILED)]
  if wrong:
    raise Problem("; ".join(dict.fromkeys(wrong)))
  return "as this version of acme_stac asks for"


def _binaries() -> str:
  import reverb
  import tensorflow as tf

  # A package built against another TensorFlow fails here, or never returns.
  import launchpad  # isort: skip
  import acme_stac.agent  # noqa: F401 isort: skip
  import acme  # isort: skip

  return (
    f"TensorFlow {tf.__version__}, {reverb.__name__}, {launchpad.__name__} and"
    f" {acme.__name__} load beside each other"
  )


def _reverb_port() -> str:
  import reverb

  server = reverb.Server([reverb.Table.queue("queue", 1)])
  client = reverb.Client(f"localhost:{server.port}")
  client.insert([1.0], {"queue": 1.0})
  size = client.server_info(timeout=10)["queue"].current_size
  server.stop()
  if size != 1:
    raise Problem("an item that was written is not there")
  return "a Reverb server listens and answers"


def _courier_port() -> str:
  import courier

  server = courier.Server()
  server.Bind("double", lambda x: 2 * x)
  server.Start()
  answer = courier.Client(server.address, call_timeout=10).double(21)
  server.Stop()
  if answer != 42:
    raise Problem(f"a call came back as {answer!r}")
  return "a courier server listens and answers"


def _network() -> str:
  from programs.run import machine

  if not machine.isolate_network():
    raise Problem("the kernel does not give a process a network of its own")
  return "local runs can have a network of their own"


def _tensorboard() -> str:
  script = pathlib.Path(sys.executable).with_name("tensorboard")
  result = subprocess.run(
    [script, "--version"], capture_output=True, text=True, errors="replace",
    timeout=_TIMEOUT_SECONDS / 2,
  )
  lines = [line for line in result.stderr.splitlines() if line.strip()]
  if result.returncode:
    raise Problem(f"{script} does not start: {lines[-1] if lines else ''}")
  return f"{script} starts, version {result.stdout.strip()}"


def _atari() -> str:
  from acme_stac import environments

  environments.make_batched("atari:pong", 1, 0).reset()
  return "atari:pong starts"


def _control() -> str:
  from acme_stac import environments

  environments.make("control:cartpole/swingup", seed=0).reset()
  return "control:cartpole/swingup starts"


def _rendering() -> str:
  from acme_stac import environments

  environments.make("control_pixels:cartpole/swingup", seed=0).reset()
  return f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}"


_CORE = (
  Check("Python", _python, ""),
  Check(
    "core", _core,
    "'pip install .' in a clone of the project, into this environment.",
  ),
  Check(
    "devices", _devices,
    "Install JAX for your accelerator, of the version that you have: docs.jax."
    "dev, 'Installation'; in a clone of the project, xm_launch/cuda12.lock has"
    " what NVIDIA GPUs need.",
    needed=False,
  ),
)
_PROGRAM = (
  Check("versions", _versions, _REINSTALL),
  Check("binaries", _binaries, _REINSTALL),
  Check(
    "Reverb", _reverb_port,
    "Let processes listen on a port of this machine: look at its firewall and"
    " at proxies (no_proxy=localhost).",
  ),
  Check("courier", _courier_port, "As for Reverb."),
  Check("TensorBoard", _tensorboard, _REINSTALL, needed=False),
  Check("Atari", _atari, f"{_REINSTALL} It has ale-py with its games.",
        needed=False),
  Check("DM control", _control, _REINSTALL, needed=False),
  Check(
    "rendering", _rendering,
    "Observations from pixels and videos need OpenGL: install libegl1 (GPU or"
    " Mesa) or libosmesa6 with your distribution, and set MUJOCO_GL=egl or"
    " MUJOCO_GL=osmesa.",
    needed=False,
  ),
  Check(
    "network", _network,
    "Without it others can reach the ports of a local run: docs/operations.md,"
    " 'Who may come in'.",
    needed=False,
  ),
)


def _is_installed(name: str) -> bool:
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def _run_apart(check: Check) -> tuple[bool, str]:
  """Runs a check in a process of its own; returns (fine, what it said)."""
  command = [sys.executable, "-m", "acme_stac.doctor", "--only", check.name]
  quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_LOG_COMPILES": "0"}
  try:
    result = subprocess.run(
      command,
      env={**os.environ, **quiet},
      capture_output=True,
      text=True,
      errors="replace",
      timeout=_TIMEOUT_SECONDS,
    )
  except subprocess.TimeoutExpired:
    return False, f"no answer within {_TIMEOUT_SECONDS:.0f} s"
  said = re.findall(r"^doctor: (.*)$", result.stdout, re.MULTILINE)
  if result.returncode == 0 and said:
    return True, said[-1]
  lines = [line for line in result.stderr.splitlines() if line.strip()]
  if result.returncode < 0:
    return False, f"the process ended by signal {-result.returncode}"
  return False, said[-1] if said else (lines or ["it said nothing"])[-1].strip()


def _run_here(name: str) -> int:
  """Runs one check in this process."""
  (check,) = (check for check in (*_CORE, *_PROGRAM) if check.name == name)
  try:
    print(f"doctor: {check.run()}")
  except Exception as error:  # Whatever a broken package raises.
    what = str(error) if isinstance(error, Problem) else (
      f"{type(error).__name__}: {error}"
    )
    print("doctor: " + " ".join(what.split()))
    return 1
  return 0


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(
    "acme_stac.doctor", description=__doc__, allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--only", choices=[check.name for check in (*_CORE, *_PROGRAM)],
    help="run this check, in this process",
  )
  only = parser.parse_args(argv).only
  if only:
    return _run_here(only)
  broken = False
  checks = list(_CORE)
  installed = any(_is_installed(name) for name in _DISTRIBUTED)
  if installed:
    checks += _PROGRAM
  if not pathlib.Path("programs").is_dir():
    checks = [check for check in checks if check.name != "network"]
  loads = True
  for check in checks:
    if check.name in _NEED_BINARIES and not loads:
      continue
    fine, said = _run_apart(check)
    loads = loads and (fine or check.name != "binaries")
    mark = "ok" if fine else "BROKEN" if check.needed else "lacks"
    print(f"{mark:7}{check.name}: {said}", flush=True)
    if not fine:
      print(f"       -> {check.advice}", flush=True)
      broken = broken or check.needed
  if not installed:
    print(
      "       Acme, Launchpad and Reverb are not installed, so there are no"
      " agent and no program, but acme_stac.core, networks and load_policy."
      f"\n       -> {_REINSTALL}"
    )
  return int(broken)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
