import os
import pathlib
import subprocess
import sys

import pytest

from programs.run import machine

NAME = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def clean(monkeypatch, tmp_path):
  # Set first, so that whatever the function does is undone.
  for name in (NAME, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  return tmp_path


def test_what_is_compiled_is_kept_for_the_user(clean):
  machine.use_compilation_cache()
  directory = pathlib.Path(os.environ[NAME])
  assert directory.parent == clean / "acme_stac"
  assert directory.stat().st_mode & 0o077 == 0
  program = (
    "import jax, jax.numpy as jnp;"
    "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
    "jax.jit(lambda x: jnp.linalg.norm(x @ x))(jnp.ones((3, 3)))"
  )
  subprocess.run([sys.executable, "-c", program], check=True)
  assert list(directory.iterdir())


def test_another_processor_has_a_cache_of_its_own(clean, monkeypatch):
  machine.use_compilation_cache()
  here = os.environ.pop(NAME)
  monkeypatch.setattr(machine.platform, "machine", lambda: "another")
  machine.use_compilation_cache()
  assert os.environ[NAME] != here


@pytest.mark.parametrize("value", ["", "/somewhere"])
def test_what_is_set_stays(clean, monkeypatch, value):
  monkeypatch.setenv(NAME, value)
  machine.use_compilation_cache()
  assert os.environ[NAME] == value


def test_no_place_for_a_cache(clean, monkeypatch):
  (clean / "acme_stac").write_text("")
  machine.use_compilation_cache()
  assert NAME not in os.environ


def test_no_home_for_a_cache(clean, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", "~nobody_of_this_name/cache")
  machine.use_compilation_cache()
  assert NAME not in os.environ
