"""What is said of an accelerator that does not work."""

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
NVIDIA_SMI = """
case "$1" in
  *gpu=*) printf 'A, 0, 50000, 81559\\nB, 1, 80000, 81559\\n' ;;
  *) printf 'A, 17, 49990, python\\nB, 4711, 79990, other/python\\n' ;;
esac
"""

# As jax-cuda12-plugin 0.6.2 has them; JAX 0.4.30 has quotes of the other kind.
PLUGIN_NEEDS = (
  "jax-cuda12-pjrt==0.6.2",
  'nvidia-cudnn-cu12<10.0,>=9.8; extra == "with-cuda"',
  "nvidia-nccl-cu12>=2.18.1 ; extra == 'with_cuda'",
  'nvidia-cublas-cu12>=12.1; sys_platform == "linux" and extra == "with-cuda"',
)


def run_check(**environment):
  return subprocess.run(
    [sys.executable, "-m", "acme_stac.accelerator"],
    env=os.environ | environment, capture_output=True, text=True,
  )


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Makes packages that are found before those of this environment."""
  jax.devices()  # JAX looks for its own plugins among them only once.
  monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

  def write(requires=(), **versions):
    for name, version in versions.items():
      folder = tmp_path / f"{name}-{version}.dist-info"
      folder.mkdir()
      lines = [f"Name: {name}", f"Version: {version}"]
      if name.endswith("plugin"):
        lines += [f"Requires-Dist: {line}" for line in requires]
      (folder / "METADATA").write_text("\n".join(lines) + "\n")

  return write


@pytest.fixture
def driver(tmp_path, monkeypatch):
  """Writes an nvidia-smi with these lines of a shell."""
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

  def write(text):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)

  return write


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
  ({"jax_cuda12_plugin": "0.6.2"}, "(jax-cuda12-pjrt is missing)"),
  ({"jax_cuda12_plugin": "0.6.2", "jax_cuda12_pjrt": "0.6.1",
    "nvidia_cudnn_cu12": "9.1.0.70", "nvidia_nccl_cu12": "2.27.5"},
   "jax-cuda12-plugin 0.6.2 lacks packages that fit (jax-cuda12-pjrt 0.6.1,"
   " not ==0.6.2; nvidia-cudnn-cu12 9.1.0.70, not <10.0,>=9.8): pip install"
   ' "jax-cuda12-plugin[with_cuda]==0.6.2".'),
])
def test_plugins_that_do_not_fit(install, versions, said, monkeypatch):
  install(PLUGIN_NEEDS, jax="0.6.2", jaxlib="0.6.2", **versions)
  fail(monkeypatch, "CUDNN_STATUS_NOT_INITIALIZED")
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert "CUDNN_STATUS_NOT_INITIALIZED" in str(error.value)
  assert said in str(error.value)


def test_a_plugin_whose_packages_fit(install, monkeypatch):
  install(
    PLUGIN_NEEDS, jax="0.6.2", jaxlib="0.6.2", jax_cuda12_plugin="0.6.2",
    jax_cuda12_pjrt="0.6.2", nvidia_cudnn_cu12="9.8.0.87",
  )
  fail(monkeypatch, "the reason")
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert "pip install" not in str(error.value)


@pytest.mark.parametrize("plugin,version,said", [
  ("jax_cuda12_plugin", "470.2",
   "driver 470 is too old for cuda12, which needs 525: update the driver."),
  ("jax_cuda13_plugin", "550.1",
   "driver 550 is too old for cuda13, which needs 580: update the driver, or"
   " install jax[cuda12]."),
  ("jax_cuda13_plugin", "580.1", ""),
])
def test_drivers_that_are_too_old(
  install, driver, plugin, version, said, monkeypatch
):
  install(**{plugin: "0.6.2"})
  driver(f'case "$1" in *driver*) echo {version} ;; esac')
  fail(monkeypatch, "CUDA_ERROR_INVALID_IMAGE")
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert said in str(error.value)
  assert bool(said) == ("too old" in str(error.value))


def test_a_gpu_of_wsl(tmp_path, monkeypatch):
  monkeypatch.setattr(accelerator.glob, "glob", lambda pattern: [])
  monkeypatch.setattr(accelerator, "_WSL_DEVICE", tmp_path / "dxg")
  monkeypatch.setattr(accelerator, "_WSL_NVIDIA_SMI", tmp_path / "smi")
  monkeypatch.setenv("PATH", "/nowhere")
  # Every GPU has the device.
  (tmp_path / "dxg").touch()
  assert not accelerator.has_gpu()
  assert accelerator.nvidia_smi("--query-gpu=driver_version") == []
  (tmp_path / "smi").write_text("#!/bin/sh\necho 555.85\n")
  (tmp_path / "smi").chmod(0o755)
  assert accelerator.has_gpu()
  assert accelerator.nvidia_smi("--query-gpu=driver_version") == [["555.85"]]


def test_two_versions_of_a_cuda_library(tmp_path, monkeypatch):
  (tmp_path / "libcudnn.so.8").touch()
  monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere::{tmp_path}")
  fail(monkeypatch, "cuDNN was compiled with 9.8, but 8.9 was loaded")
  with pytest.raises(accelerator.AcceleratorError) as error:
    accelerator.check()
  assert f"{tmp_path}/libcudnn.so.8" in str(error.value)
  assert "unset LD_LIBRARY_PATH" in str(error.value)


def test_memory_that_other_processes_hold(driver, monkeypatch):
  driver(NVIDIA_SMI)
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
