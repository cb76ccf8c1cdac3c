"""Compiles programs in the background."""

from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax


def compile_in_thread(
  lowered: jax.stages.Lowered,
) -> futures.Future[Callable[..., Any]]:
  """Compiles a lowered program in a thread of its own."""
  executor = futures.ThreadPoolExecutor(1, "compilation")
  compiled: futures.Future[Callable[..., Any]] = executor.submit(
    lowered.compile
  )
  executor.shutdown(wait=False)
  return compiled
