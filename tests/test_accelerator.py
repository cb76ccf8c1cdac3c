"""What is said of an accelerator that does not work."""

import importlib.metadata
import os
import re
import subprocess
import sys

import jax
import pytest

from acme_stac import accelerator
from programs.launch import flags, members, session

TRAIN = ["--config=configs/small.py:catch", "--num_actors=1"]
# Two GPUs; other processes hold some of the first one, and most of the second.
NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *gpu=*) printf 'A, 0, 50000, 81559\\nB, 1, 80000, 81559\\n' ;;
  *) printf 'A, 17, 49990, python\\nB, 4711, 79990, other/python\\n' ;;
esac
"""


def run_check(**environment):
  return subprocess.run(
    [sys.executable, "-m", "acme_stac.accelerator"],
    env=os.environ | environment, capture_output=True, text=True,
  )


def install(monkeypatch, **versions):
  """Pretends that these are the packages that are installed."""
  jax.devices()  # JAX looks for its own plugins among them only once.
  packages = [
    type("Package", (), {"name": name.replace("_", "-"), "version": version})
    for name, version in versions.items()
  ]
  monkeypatch.setattr(importlib.metadata, "distributions", lambda: packages)


def fail(monkeypatch, message):
  def convolve(*arguments, **options):
    raise jax.errors.JaxRuntimeError(message)

  monkeypatch.setattr(jax.lax, "conv", convolve)


def test_the_cpu_works():
  assert "cpu; a matrix product and a convolution run" in accelerator.check()
  result = run_check(JAX_PLATFORMS="cpu")
  assert (result.returncode, result.stdout) == (0, "")


def test_a_platform_that_jax_lacks():
  result = run_check(JAX_PLATFORMS="cuda")
  assert result.returncode == 1
  assert "JAX_PLATFORMS=cuda" in result.stdout
  assert re.search(
    "make setup( STACK=current)? ACCELERATOR=cuda12", result.stdout
  )
  assert "Traceback" not in result.stderr


@pytest.mark.parametrize("mode", ["serial", "local_mp"])
def test_training_is_refused_before_environments_are_made(
  mode, tmp_path, monkeypatch
):
  def check():
    raise accelerator.AcceleratorError("the reason")

  def make(*arguments):
    raise AssertionError("made environments")

  monkeypatch.setattr(accelerator, "check", check)
  monkeypatch.setattr(members, "make_experiments", make)
  parsed = flags.parse([*TRAIN, f"--workdir={tmp_path}", f"--launch={mode}"])
  reason = "the reason" if mode == "serial" else "No plugin for NVIDIA GPUs"
  with pytest.raises(session.UserError, match=reason):
    session.describe(parsed, {"JAX_PLATFORMS": "cuda"})


@pytest.mark.parametrize(("versions", "said"), [
  ({"jax_cuda12_plugin": "0.6.2", "jax_cuda13_plugin": "0.11.2"},
   "pip uninstall jax-cuda13-plugin jax-cuda13-pjrt"),
  ({"jax_cuda12_plugin": "0.6.1"},
   "jax-cuda12-plugin 0.6.1 does not fit jaxlib 0.6.2"),
])
def test_plugins_that_do_not_fit(versions, said, monkeypatch):
  install(monkeypatch, jax="0.6.2", jaxlib="0.6.2", **versions)
  fail(monkeypatch, "CUDNN_STATUS_NOT_INITIALIZED")
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert "CUDNN_STATUS_NOT_INITIALIZED" in str(error.value)
  assert said in str(error.value)


def test_two_versions_of_a_cuda_library(tmp_path, monkeypatch):
  (tmp_path / "libcudnn.so.8").touch()
  monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere::{tmp_path}")
  fail(monkeypatch, "cuDNN was compiled with 9.8, but 8.9 was loaded")
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert f"{tmp_path}/libcudnn.so.8" in str(error.value)
  assert "unset LD_LIBRARY_PATH" in str(error.value)


def test_memory_that_other_processes_hold(tmp_path, monkeypatch):
  (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
  (tmp_path / "nvidia-smi").chmod(0o755)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  accelerator.check()  # The CPU alone is asked for.
  monkeypatch.setenv("JAX_PLATFORMS", "")
  monkeypatch.setattr(accelerator, "has_gpu", lambda: True)
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert "80,000 of the 81,559 MiB of GPU 1: 4711 (other/python)" in str(
    error.value
  )
  assert "GPU 0" not in str(error.value)
  # The other one has enough left for a learner, but is worth a warning.
  for visible in ("0", " 0 ", "0,", "0,-1,1", "A"):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    accelerator.check()
  fail(monkeypatch, "RESOURCE_EXHAUSTED")
  with pytest.raises(accelerator.AcceleratorError, match="GPU 0: 17 .python"):
    accelerator.check()
  monkeypatch.setattr(os, "getpid", lambda: 17)
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert "GPU 0" not in str(error.value)


def test_a_gpu_that_jax_does_not_use(monkeypatch):
  monkeypatch.setattr(accelerator, "has_gpu", lambda: True)
  monkeypatch.setenv("JAX_PLATFORMS", "")
  assert "JAX has the CPU only. No plugin" in accelerator.warning()
  assert accelerator.is_expected("")
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert accelerator.warning() is None
  assert not accelerator.is_expected("cpu")
