import os

import pytest

# Before anything imports JAX: tests of the sharded learner need several
# devices, and no test may take an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "XLA_FLAGS", "--xla_force_host_platform_device_count=4"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture
def quick_compilation():
  """Compiles in half the time, for what runs once and is not timed."""
  import jax

  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)
