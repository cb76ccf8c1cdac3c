"""A device's peak rate: FLOP/s of matrix products, by type."""

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from programs.benchmark import measuring

# TFLOP/s of dense matrix products from vendors' data sheets, keyed by a part of
# JAX's name for the device. float32 means TF32 on devices that have it, because
# JAX uses it there by default for float32 products and convolutions.
_DATA_SHEETS: Mapping[str, Mapping[str, float]] = {
  "H200": {"float32": 495, "bfloat16": 989},
  "H100 PCIe": {"float32": 378, "bfloat16": 756},
  "H100": {"float32": 495, "bfloat16": 989},
  "A100": {"float32": 156, "bfloat16": 312},
  "L40S": {"float32": 183, "bfloat16": 362},
  "L4": {"float32": 60, "bfloat16": 121},
  "RTX 4090": {"float32": 82.6, "bfloat16": 165.2},
  "RTX 3090": {"float32": 35.6, "bfloat16": 71.2},
  "RTX A6000": {"float32": 77.4, "bfloat16": 154.8},
  # These have neither TF32 nor bfloat16.
  "T4": {"float32": 8.1},
  "V100": {"float32": 15.7},
}


class Peak(NamedTuple):
  """A device's peak rate.

  Attributes:
    flops_per_second: FLOP/s of matrix products.
    source: "data sheet" or "measured".
  """

  flops_per_second: float
  source: str


def peak(dtype: str) -> Peak:
  """Returns the default device's peak for a type.

  The peak is measured if no data sheet is known.

  Args:
    dtype: "float32" or "bfloat16".
  """
  kind = jax.devices()[0].device_kind
  for name, rates in _DATA_SHEETS.items():
    if re.search(rf"\b{name}\b", kind) and dtype in rates:
      return Peak(1e12 * rates[dtype], "data sheet")
  return Peak(matrix_product_rate(dtype), "measured")


@functools.cache
def matrix_product_rate(dtype: str) -> float:
  """Returns the FLOP/s of the fastest of a few large matrix products."""
  size = 1024 if jax.default_backend() == "cpu" else 8192
  matrix = jnp.ones((size, size), getattr(jnp, dtype))
  product = jax.jit(jnp.matmul)

  def call():
    product(matrix, matrix).block_until_ready()

  seconds = min(measuring.steady_cost(call, 0.1).seconds for _ in range(5))
  return 2.0 * size**3 / seconds


def float32_products() -> str:
  """Returns the type in which JAX multiplies float32 matrices here."""
  config: Any = jax.config  # Any, as JAX adds its attributes at run time.
  precision = config.jax_default_matmul_precision
  if precision is not None:
    return str(precision)
  device = jax.devices()[0]
  if device.platform == "tpu":
    return "bfloat16"
  if device.platform == "gpu":
    # TF32 came with Ampere, whose compute capability is 8.0.
    major = str(getattr(device, "compute_capability", "0")).partition(".")[0]
    return "TF32" if int(major) >= 8 else "float32"
  return "float32"
