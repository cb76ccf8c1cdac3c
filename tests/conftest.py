import importlib.util
import os
import sys
import tempfile

import pytest

# Tests of the distributed layer. They are left out exactly where none of its
# packages is installed; where any is, what is broken fails.
DISTRIBUTED_PACKAGES = ("acme", "courier", "launchpad", "reverb")
DISTRIBUTED = (
  "agent",
  "programs/launch/test_hosts.py",
  "programs/launch/test_processes.py",
  "programs/launch/test_supervision.py",
  "programs/launch/test_threads.py",
  "programs/nodes/test_calls.py",
  "programs/test_benchmark.py",
  "programs/test_soak.py",
  # The installation of everything, and the pages, which show all of it.
  "test_docs.py",
  "test_packaging.py",
  "test_silence.py",
  "xm_launch",
)
has_distributed_layer = any(
  importlib.util.find_spec(name) for name in DISTRIBUTED_PACKAGES
)
collect_ignore = [] if has_distributed_layer else list(DISTRIBUTED)

# Before anything imports JAX: tests of the sharded learner need several
# devices, and no test may take an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "XLA_FLAGS", "--xla_force_host_platform_device_count=4"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# One cache for a session: its workers and the processes that tests start share
# what they compile. The first process to come here makes it, and removes it at
# its end.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _cache = tempfile.TemporaryDirectory(prefix="acme_stac_tests_")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_cache.name}/jax"
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
  # Where byte code is not wanted beside the sources, and packages may have come
  # without it: each of a few hundred processes would compile all that it
  # imports, which takes two thirds of its start.
  if sys.dont_write_bytecode:
    os.environ["PYTHONPYCACHEPREFIX"] = f"{_cache.name}/python"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture
def quick_compilation():
  """Compiles in half the time, for what runs once and is not timed."""
  import jax

  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
