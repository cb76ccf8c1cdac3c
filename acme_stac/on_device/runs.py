"""Applies a function to several runs of one program."""

from collections.abc import Callable
from typing import Any

import jax


def map_runs(
  function: Callable[..., Any], num_devices: int = 1
) -> Callable[..., Any]:
  """Returns the function over a leading axis of runs, as `jax.vmap` does.

  A single CPU device goes from run to run: the arrays of one stay in its
  caches, which takes three quarters of the time of MinAtar's updates. All other
  devices take the runs at once.

  Args:
    function: pure function of nests of arrays.
    num_devices: devices that the runs are spread over.
  """
  if jax.default_backend() == "cpu" and num_devices == 1:
    return lambda *runs: jax.lax.map(lambda run: function(*run), runs)
  return jax.vmap(function)
