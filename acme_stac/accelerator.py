"""Checks that JAX's accelerator works, and explains failures."""

import glob
import importlib.metadata
import itertools
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp

_DOCUMENTATION = "docs/gpu.md explains how to set up a GPU."
# Libraries that JAX loads first and that another CUDA installation may shadow.
_CUDA_LIBRARIES = ("libcudnn*", "libcublas.*", "libcudart.*")
# CUDA 13 needs this driver.
_CUDA_13_DRIVER = 580
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
    return "\n".join(_memory_held()) or None
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
  """Returns whether the kernel lists an NVIDIA GPU."""
  return bool(glob.glob("/dev/nvidia[0-9]*"))


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
  return [*_plugin_faults(), *_library_faults(), *_memory_held()]


def _plugin_faults() -> list[str]:
  versions = {
    distribution.name.lower(): distribution.version
    for distribution in importlib.metadata.distributions()
  }
  plugins = {
    name: version for name, version in versions.items()
    if name in ("jax-cuda12-plugin", "jax-cuda13-plugin")
  }
  is_current = "dm-launchpad-nightly" not in versions
  if _asks_for("tpu") and "libtpu" not in versions:
    return [_missing("TPUs", "tpu", versions["jax"], is_current)]
  if not plugins:
    if not (has_gpu() or _asks_for("cuda", "gpu")):
      return []
    cuda = _fitting_cuda(is_current)
    return [_missing("NVIDIA GPUs", cuda, versions["jax"], is_current)]
  if len(plugins) > 1:
    cuda = _fitting_cuda(is_current)
    other = "cuda12" if cuda == "cuda13" else "cuda13"
    return [
      f"{' and '.join(plugins)} are both installed, with two versions of CUDA's"
      f" libraries: pip uninstall jax-{other}-plugin jax-{other}-pjrt, or"
      f" install jax[{cuda}] alone in a new environment."
    ]
  ((name, version),) = plugins.items()
  if version != versions["jaxlib"]:
    return [
      f"{name} {version} does not fit jaxlib {versions['jaxlib']}: pip install"
      f" \"{name}[with_cuda]=={versions['jaxlib']}\"."
    ]
  return []


def _missing(devices: str, extra: str, jax_version: str, current: bool) -> str:
  """Returns how to install the plugin that JAX has as `extra`."""
  stack = " STACK=current" if current else ""
  return (
    f"No plugin for {devices} is installed: 'make setup{stack}"
    f" ACCELERATOR={extra}' in a clone of the project, or, in an environment of"
    f" your own, pip install \"jax[{extra}]=={jax_version}\"."
  )


def _asks_for(*names: str) -> bool:
  platforms = os.environ.get("JAX_PLATFORMS", "").split(",")
  return bool(set(names) & set(platforms))


def _fitting_cuda(is_current: bool) -> str:
  """Returns the newest CUDA for stack and driver, as JAX's extras are named."""
  rows = _nvidia_smi("--query-gpu=driver_version")
  driver = _number(rows[0][0].partition(".")[0]) if rows else 0
  return "cuda13" if is_current and driver >= _CUDA_13_DRIVER else "cuda12"


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
  gpus = _nvidia_smi("--query-gpu=uuid,index,memory.used,memory.total")
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
    apps = _nvidia_smi("--query-compute-apps=gpu_uuid,pid,used_memory,name")
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


def _nvidia_smi(query: str) -> list[list[str]]:
  """Returns the rows of a query; an empty list without a driver."""
  try:
    result = subprocess.run(
      ["nvidia-smi", query, "--format=csv,noheader,nounits"],
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
