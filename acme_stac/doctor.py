"""Checks an installation and reports what is missing and how to install it.

Usage:
  python -m acme_stac.doctor

Every check runs in its own process, because incompatible compiled packages
crash the process that loads them. The exit code is 1 if an installed part does
not work.
"""

import argparse
import importlib
import importlib.metadata
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_TIMEOUT_SECONDS = 180.0
_PACKAGE = "acme_stac"
# Loaded by the checks, because it needs a package that may be missing.
_REQUIREMENTS = "acme_stac.requirements"
_REINSTALL = (
  "Install matching versions: 'make setup' in a clone of the project makes an"
  " environment with them ('make setup STACK=current' makes one for any newer"
  " Python, without Acme, Launchpad and Reverb)."
)
# The layers are identified by names of distributions, because other packages
# may have modules of the same names.
_ONE_HOST = ("ml-collections",)
_DISTRIBUTED = ("dm-acme", "dm-launchpad-nightly", "dm-reverb")
# Compiled against particular versions (of TensorFlow's protobuf and NumPy, for
# example) that their metadata does not state: all that they require must have
# the versions of the lock.
_COMPILED = ("dm-launchpad-nightly", "dm-reverb", "tensorflow-cpu")
_LOCK = pathlib.Path(__file__).parent.parent / "requirements.lock"


class Problem(Exception):  # noqa: N818 (not always an error)
  """A fault of the installation, described in one line."""


class Check(NamedTuple):
  """A check of the installation.

  Attributes:
    name: name of its line in the output.
    run: returns what was found; raises if something is wrong.
    advice: how to repair it.
    needed: whether the installation is unusable if the check fails.
    needs: name of a check; if that one fails, this one is not tried.
  """

  name: str
  run: Callable[[], str]
  advice: str
  needed: bool = True
  needs: str | None = None


def _load(name: str) -> Any:
  """Imports a module by name, since any module may be missing or broken."""
  return importlib.import_module(name)


def _python() -> str:
  return f"{platform.python_version()} on {platform.platform()}"


def _wrong_versions(extra: str = "") -> list[str]:
  """Returns the packages that lack a version that acme_stac requires."""
  if not _is_installed(_PACKAGE):
    raise Problem(
      "acme_stac itself is not installed (only its folder was found), so"
      " versions cannot be compared"
    )
  return [str(each) for each in _load(_REQUIREMENTS).unmet(_PACKAGE, extra)]


def _not_locked(names: Iterable[str]) -> list[str]:
  """Returns the packages whose version differs from the lock's.

  Without a lock beside the installation, none does.

  Args:
    names: packages to check, along with all that they require.
  """
  if not _LOCK.is_file():
    return []
  pins = dict(re.findall(
    r"^([\w.-]+)==([^\s;]+)", _LOCK.read_text(), re.MULTILINE
  ))
  return [
    f"{name} {version}, not {pins[name]}"
    for name in sorted(_with_requirements(names))
    if (version := importlib.metadata.version(name)) != pins.get(name, version)
  ]


def _with_requirements(names: Iterable[str]) -> set[str]:
  """Returns installed packages and all that they require, directly or not."""
  canonical = _load("packaging.utils").canonicalize_name
  requirements_of = _load(_REQUIREMENTS).requirements_of
  found: set[str] = set()
  waiting = [canonical(name) for name in names]
  while waiting:
    name = waiting.pop()
    if name not in found and _is_installed(name):
      found.add(name)
      waiting += [canonical(needed.name) for needed in requirements_of(name)]
  return found


def _is_installed(name: str) -> bool:
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def _core() -> str:
  jax, core = _load("jax"), _load("acme_stac.core")
  if wrong := _wrong_versions():
    raise Problem("; ".join(wrong))
  row = jax.numpy.ones([2])
  value = core.leaky_vtrace(
    row, row, row, row, row, alpha_rho=1.0, alpha_c=1.0, lambda_=1.0
  )
  value.targets.block_until_ready()
  return f"acme_stac.core computes, with JAX {jax.__version__}"


def _devices() -> str:
  accelerator = _load("acme_stac.accelerator")
  try:
    said = accelerator.check()
  except accelerator.AcceleratorError as error:
    raise Problem(str(error)) from error
  memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
  return f"{said}; {os.cpu_count()} cores, {memory:.0f} GiB"


def _gpu() -> str:
  accelerator = _load("acme_stac.accelerator")
  if (advice := accelerator.warning()) is not None:
    raise Problem(advice)
  return "none is left unused"


def _packages() -> str:
  if wrong := _wrong_versions("train"):
    raise Problem("; ".join(wrong))
  return "the packages for training on one host are installed"


def _versions() -> str:
  if sys.version_info[:2] != (3, 10) or platform.machine() != "x86_64":
    raise Problem(
      "Launchpad and Reverb exist for Python 3.10 on Linux x86-64 only"
    )
  wrong = [*_wrong_versions("distributed"), *_not_locked(_COMPILED)]
  if wrong:
    raise Problem("; ".join(dict.fromkeys(wrong)))
  return "as this version of acme_stac requires"


def _binaries() -> str:
  # A package built against another TensorFlow fails or hangs here.
  for name in ("reverb", "tensorflow", "launchpad", "acme_stac.agent", "acme"):
    _load(name)
  return "TensorFlow, Reverb, Launchpad and Acme load together"


def _reverb_port() -> str:
  reverb = _load("reverb")
  server = reverb.Server([reverb.Table.queue("queue", 1)])
  client = reverb.Client(f"localhost:{server.port}")
  client.insert([1.0], {"queue": 1.0})
  size = client.server_info(timeout=10)["queue"].current_size
  server.stop()
  if size != 1:
    raise Problem("a written item is missing")
  return "a Reverb server listens and answers"


def _courier_port() -> str:
  courier = _load("courier")
  server = courier.Server()
  server.Bind("double", lambda x: 2 * x)
  server.Start()
  answer = courier.Client(server.address, call_timeout=10).double(21)
  server.Stop()
  if answer != 42:
    raise Problem(f"a call returned {answer!r}")
  return "a courier server listens and answers"


def _network() -> str:
  # Tries what `programs.run.machine.isolate_network` does.
  result = subprocess.run(
    ["unshare", "--user", "--net", "true"], capture_output=True
  )
  if result.returncode:
    raise Problem("the kernel does not give a process a network of its own")
  return "local runs can have a network of their own"


def _tensorboard() -> str:
  script = pathlib.Path(sys.executable).with_name("tensorboard")
  result = subprocess.run(
    [script, "--version"], capture_output=True, text=True, errors="replace",
    timeout=_TIMEOUT_SECONDS / 2,
  )
  if result.returncode:
    raise Problem(f"{script} does not start: {_last_line(result.stderr)}")
  return f"{script} starts, version {result.stdout.strip()}"


def _environment(name: str) -> str:
  environments = _load("acme_stac.environments")
  environments.make_batched(name, 1, 0).reset()
  return f"{name} starts"


_GPU_ADVICE = "Follow docs/gpu.md to set up a GPU."
# Those that use JAX's devices; the others do without an accelerator.
_ON_DEVICES = ("devices", "GPU")
_CORE = (
  Check("Python", _python, ""),
  Check(
    "core", _core,
    "'pip install .' in a clone of the project, into this environment.",
  ),
  Check("devices", _devices, _GPU_ADVICE),
  Check("GPU", _gpu, _GPU_ADVICE, needed=False, needs="devices"),
)
_HOST = (
  Check("packages", _packages, _REINSTALL),
  Check("TensorBoard", _tensorboard, _REINSTALL, needed=False),
  Check(
    "Atari", lambda: _environment("atari:pong"),
    f"{_REINSTALL} It has ale-py with its games.", needed=False,
  ),
  Check(
    "DM control", lambda: _environment("control:cartpole/swingup"), _REINSTALL,
    needed=False,
  ),
  Check(
    "rendering", lambda: _environment("control_pixels:cartpole/swingup"),
    "Observations from pixels and videos need OpenGL: install libegl1 (GPU or"
    " Mesa) or libosmesa6 with your distribution, and set MUJOCO_GL=egl or"
    " MUJOCO_GL=osmesa.",
    needed=False,
  ),
)
_PROGRAM = (
  Check("versions", _versions, _REINSTALL),
  Check("binaries", _binaries, _REINSTALL),
  Check(
    "Reverb", _reverb_port,
    "Let processes listen on a port of this machine: check its firewall and"
    " proxies (no_proxy=localhost).",
    needs="binaries",
  ),
  Check("courier", _courier_port, "As for Reverb.", needs="binaries"),
  Check(
    "network", _network,
    "Without it, others can reach the ports of a local run: docs/operations.md,"
    " 'Who may come in'.",
    needed=False,
  ),
)
_CHECKS = (*_CORE, *_HOST, *_PROGRAM)


def _last_line(text: str) -> str:
  lines = [line for line in text.splitlines() if line.strip()]
  return lines[-1].strip() if lines else ""


def _run_apart(check: Check) -> tuple[bool, str]:
  """Runs a check in a process of its own; returns (passed, its message)."""
  command = [sys.executable, "-m", "acme_stac.doctor", "--only", check.name]
  variables = {
    **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_LOG_COMPILES": "0"
  }
  if check.name not in _ON_DEVICES:
    # An accelerator that does not work is no fault of theirs.
    variables["JAX_PLATFORMS"] = "cpu"
  try:
    result = subprocess.run(
      command, env=variables, capture_output=True, text=True,
      errors="replace", timeout=_TIMEOUT_SECONDS,
    )
  except subprocess.TimeoutExpired:
    return False, f"no answer within {_TIMEOUT_SECONDS:.0f} s"
  said = re.findall(r"^doctor: (.*)$", result.stdout, re.MULTILINE)
  if result.returncode < 0:
    return False, f"the process ended by signal {-result.returncode}"
  if said:
    return result.returncode == 0, said[-1]
  return False, _last_line(result.stderr) or "the process printed nothing"


def _run_here(name: str) -> int:
  """Runs one check in this process; returns its exit code."""
  (check,) = (check for check in _CHECKS if check.name == name)
  try:
    print(f"doctor: {check.run()}")
  except Problem as problem:
    print("doctor: " + " ".join(str(problem).split()))
    return 1
  except Exception as error:  # noqa: BLE001 (whatever a broken package raises)
    print("doctor: " + " ".join(f"{type(error).__name__}: {error}".split()))
    return 1
  return 0


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(
    "acme_stac.doctor", description=__doc__, allow_abbrev=False,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    "--only", choices=[check.name for check in _CHECKS],
    help="run this check, in this process",
  )
  only = parser.parse_args(argv).only
  if only:
    return _run_here(only)
  distributed = any(map(_is_installed, _DISTRIBUTED))
  one_host = distributed or all(map(_is_installed, _ONE_HOST))
  checks = [
    *_CORE,
    *(_HOST if one_host else ()),
    *(_PROGRAM if distributed else ()),
  ]
  failed: dict[str, Check] = {}
  for check in checks:
    if check.needs in failed:
      print(f"{'':7}{check.name}: not tried, as it needs {check.needs}")
      continue
    passed, said = _run_apart(check)
    mark = "ok" if passed else "BROKEN" if check.needed else "lacks"
    print(f"{mark:7}{check.name}: {said}", flush=True)
    if not passed:
      print(f"       -> {check.advice}", flush=True)
      failed[check.name] = check
  if not distributed:
    works = (
      "training with --launch=serial, colocated and on_device, evaluation and"
      " reports work"
      if one_host else "acme_stac.core, networks and load_policy work"
    )
    print(
      "       Acme, Launchpad and Reverb are not installed, so there is no"
      f" distributed agent; {works}.\n       -> {_REINSTALL}"
    )
  return int(any(check.needed for check in failed.values()))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
