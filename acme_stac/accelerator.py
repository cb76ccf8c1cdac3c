"""Checks that JAX's accelerator works, and explains failures."""

import glob
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from acme_stac.requirements import unmet, version_of

_DOCUMENTATION = "docs/gpu.md explains how to set up a GPU."
# Libraries that JAX loads first and that another CUDA installation may shadow.
_CUDA_LIBRARIES = ("libcudnn*", "libcublas.*", "libcudart.*")
# Oldest major version of NVIDIA's driver for each CUDA, named as JAX's extras;
# setup.sh has the same.
DRIVERS = {"cuda12": 525, "cuda13": 580}
# Where WSL has a GPU.
_WSL_DEVICE = pathlib.Path("/dev/dxg")
_WSL_NVIDIA_SMI = pathlib.Path("/usr/lib/wsl/lib/nvidia-smi")
# A learner needs at least this much free memory; JAX itself starts with less.
_LEAST_FREE_MIB = 2048


class AcceleratorError(RuntimeError):
  """JAX's devices cannot be used; the text says why and how to repair it."""


def check() -> str:
  """Runs a matrix product and a convolution on JAX's first device.

  Returns:
    A description of the devices.

  Raises:
    AcceleratorError: if JAX has no device of the requested platform, other
      processes hold a GPU's memory, or a computation on the device fails.
  """
  gpu = is_expected(os.environ.get("JAX_PLATFORMS", ""))
  if gpu and (held := _memory_held(least_free=_LEAST_FREE_MIB)):
    raise AcceleratorError("\n".join(held))
  try:
    devices = jax.devices()
    images = jnp.ones([2, 16, 16, 8])
    jax.block_until_ready((
      jnp.ones([128, 128]) @ jnp.ones([128, 128]),
      jax.lax.conv(images, jnp.ones([2, 16, 3, 3]), (1, 1), "SAME"),
    ))
  # RuntimeError: a backend that does not start, a library that does not fit, or
  # too little memory. AssertionError: JAX_PLATFORMS has no device.
  except (RuntimeError, AssertionError) as error:
    raise AcceleratorError(_explain(error)) from error
  kinds = ", ".join(sorted({device.device_kind for device in devices}))
  return f"{len(devices)} × {kinds}; a matrix product and a convolution run"


def warning() -> str | None:
  """Returns advice about a GPU that JAX does not use or has to share.

  Returns None if all is well or if JAX_PLATFORMS excludes GPUs.
  """
  if not is_expected(os.environ.get("JAX_PLATFORMS", "")) or not has_gpu():
    return None
  if jax.devices()[0].platform != "cpu":
    return "\n".join([*_plugin_faults(), *_memory_held()]) or None
  if _visible() == []:
    reasons = "CUDA_VISIBLE_DEVICES hides it."
  else:
    reasons = " ".join(_faults()) or "JAX's warnings above say why."
  return (
    f"This host has an NVIDIA GPU, but JAX has the CPU only. {reasons} Set"
    f" JAX_PLATFORMS=cpu to use the CPU on purpose. {_DOCUMENTATION}"
  )


def check_apart(environment: Mapping[str, str] | None = None) -> str:
  """Checks in another process, so that this one takes no memory.

  Args:
    environment: environment variables beyond those of this process.

  Returns:
    The `warning`, "" if there is none or no accelerator is expected.

  Raises:
    AcceleratorError: as `check`.
  """
  variables = {**os.environ, **(environment or {})}
  if not is_expected(variables.get("JAX_PLATFORMS", "")):
    return ""
  result = subprocess.run(
    [sys.executable, "-m", "acme_stac.accelerator"],
    env=variables, stdout=subprocess.PIPE, text=True,
  )
  said = result.stdout.strip()
  if result.returncode:
    raise AcceleratorError(
      said or "JAX ended the process that looked for devices."
    )
  return said


def has_gpu() -> bool:
  """Returns whether this host has an NVIDIA GPU, natively or through WSL."""
  return bool(glob.glob("/dev/nvidia[0-9]*")) or (
    _WSL_DEVICE.exists() and _WSL_NVIDIA_SMI.exists()
  )


def is_expected(platforms: str) -> bool:
  """Returns whether JAX should have devices other than the CPU.

  Args:
    platforms: value of JAX_PLATFORMS; "" if it is not set.
  """
  return platforms.split(",")[0] != "cpu" if platforms else has_gpu()


def _explain(error: Exception) -> str:
  platforms = os.environ.get("JAX_PLATFORMS")
  asked = f" (JAX_PLATFORMS={platforms})" if platforms else ""
  return "\n".join([
    f"JAX cannot compute on its devices{asked}:"
    f" {str(error) or 'there are none of this platform'}",
    *_faults(),
    _DOCUMENTATION,
  ])


def _faults() -> list[str]:
  """Returns known reasons why JAX has no accelerator, each with a remedy."""
  return [
    *_driver_faults(), *_plugin_faults(), *_library_faults(), *_memory_held()
  ]


def _plugins() -> list[str]:
  """Returns the CUDAs for which JAX's plugin is installed."""
  return [cuda for cuda in DRIVERS if version_of(f"jax-{cuda}-plugin")]


def _driver_faults() -> list[str]:
  driver = _driver()
  # Without a plugin, whatever the driver can run may be installed.
  cudas = _plugins() or [min(DRIVERS)]
  return [
    f"NVIDIA's driver {driver} is too old for {cuda}, which needs"
    f" {DRIVERS[cuda]}: update the driver"
    + (", or install jax[cuda12]." if driver >= DRIVERS["cuda12"] else ".")
    for cuda in cudas if 0 < driver < DRIVERS[cuda]
  ]


def _plugin_faults() -> list[str]:
  is_current = version_of("dm-launchpad-nightly") is None
  if _asks_for("tpu") and version_of("libtpu") is None:
    return [_missing("TPUs", "tpu", is_current)]
  plugins = _plugins()
  if not plugins:
    if not (has_gpu() or _asks_for("cuda", "gpu")):
      return []
    return [_missing("NVIDIA GPUs", _fitting_cuda(is_current), is_current)]
  if len(plugins) > 1:
    cuda = _fitting_cuda(is_current)
    other = "cuda12" if cuda == "cuda13" else "cuda13"
    names = " and ".join(f"jax-{each}-plugin" for each in plugins)
    return [
      f"{names} are both installed, with two versions of CUDA's libraries: pip"
      f" uninstall jax-{other}-plugin jax-{other}-pjrt, or install jax[{cuda}]"
      " alone in a new environment."
    ]
  name = f"jax-{plugins[0]}-plugin"
  version, jaxlib = version_of(name), version_of("jaxlib")
  repair = f"pip install \"{name}[with_cuda]=={jaxlib}\"."
  if version != jaxlib:
    return [f"{name} {version} does not fit jaxlib {jaxlib}: {repair}"]
  wrong = [
    *unmet(name),
    # CUDA's libraries need not come from pip, but those that do must fit.
    *(each for each in unmet(name, "with_cuda") if each.version),
  ]
  if not wrong:
    return []
  listed = "; ".join(map(str, wrong))
  return [f"{name} {version} lacks packages that fit ({listed}): {repair}"]


def _missing(devices: str, extra: str, current: bool) -> str:
  """Returns how to install the plugin that JAX has as `extra`."""
  stack = " STACK=current" if current else ""
  return (
    f"No plugin for {devices} is installed: 'make setup{stack}"
    f" ACCELERATOR={extra}' in a clone of the project, or, in an environment of"
    f" your own, pip install \"jax[{extra}]=={version_of('jax')}\"."
  )


def _asks_for(*names: str) -> bool:
  platforms = os.environ.get("JAX_PLATFORMS", "").split(",")
  return bool(set(names) & set(platforms))


def _fitting_cuda(is_current: bool) -> str:
  """Returns the newest CUDA for stack and driver, as JAX's extras are named."""
  fits_newest = is_current and _driver() >= DRIVERS["cuda13"]
  return "cuda13" if fits_newest else "cuda12"


def _driver() -> int:
  """Returns the major version of NVIDIA's driver; 0 if it is not known."""
  rows = nvidia_smi("--query-gpu=driver_version")
  return _number(rows[0][0].partition(".")[0]) if rows else 0


def _visible() -> list[str] | None:
  """Returns the indices and UUIDs of visible GPUs; None if all are."""
  names = os.environ.get("CUDA_VISIBLE_DEVICES")
  if names is None:
    return None
  # What follows a name that CUDA does not know is hidden, too.
  return list(itertools.takewhile(
    lambda name: name not in ("", "-1"), map(str.strip, names.split(","))
  ))


def _library_faults() -> list[str]:
  found = [
    path
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder
    for pattern in _CUDA_LIBRARIES
    for path in sorted(pathlib.Path(folder).glob(pattern))
  ]
  return [
    f"LD_LIBRARY_PATH has another version of a CUDA library ({found[0]}), which"
    " is loaded in place of JAX's own: unset LD_LIBRARY_PATH."
  ] if found else []


def _memory_held(least_free: int | None = None) -> list[str]:
  """Returns messages about visible GPUs whose memory other processes hold.

  Args:
    least_free: report a GPU if less memory than this is left, in MiB; by
      default, if other processes hold more than half of it.
  """
  visible = _visible()
  gpus = nvidia_smi("--query-gpu=uuid,index,memory.used,memory.total")
  faults = []
  for uuid, index, used, total in gpus:
    # CUDA takes the beginning of a UUID for all of it.
    if visible is not None and not any(
      name == index or uuid.startswith(name) for name in visible
    ):
      continue
    least = _number(total) / 2 if least_free is None else least_free
    if _number(total) - _number(used) >= least:
      continue
    apps = nvidia_smi("--query-compute-apps=gpu_uuid,pid,used_memory,name")
    here = [app for app in apps if app[0] == uuid]
    own = sum(
      _number(mib) for _, pid, mib, _ in here if pid == str(os.getpid())
    )
    held = _number(used) - own
    if _number(total) - held < least:
      holders = ", ".join(
        f"{pid} ({name})" for _, pid, _, name in here if pid != str(os.getpid())
      )
      faults.append(
        f"Other processes hold {held:,} of the {_number(total):,} MiB of GPU"
        f" {index}: {holders or 'nvidia-smi does not name them'}. End them, or"
        " take another GPU with CUDA_VISIBLE_DEVICES."
      )
  return faults


def _number(text: str) -> int:
  # Some drivers do not report single processes: "[N/A]".
  return int(text) if text.isdigit() else 0


def nvidia_smi(query: str) -> list[list[str]]:
  """Returns the rows of a query; an empty list without a driver."""
  program = shutil.which("nvidia-smi") or _WSL_NVIDIA_SMI
  try:
    result = subprocess.run(
      [program, query, "--format=csv,noheader,nounits"],
      capture_output=True, text=True, timeout=20, check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return []
  return [
    [field.strip() for field in line.split(",")]
    for line in result.stdout.splitlines()
  ]


def main() -> int:
  """Checks the devices of this process; returns the exit code."""
  try:
    check()
  except AcceleratorError as error:
    print(error)
    return 1
  if (advice := warning()) is not None:
    print(advice)
  return 0


if __name__ == "__main__":
  sys.exit(main())
