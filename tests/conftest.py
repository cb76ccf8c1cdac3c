import os

# Before anything imports JAX: tests of the sharded learner need several
# devices, and no test may take an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
  "XLA_FLAGS", "--xla_force_host_platform_device_count=4"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
