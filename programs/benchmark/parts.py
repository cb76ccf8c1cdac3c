"""The parts that `device` measures: their cases and measurements.

Every measurement is a generator of rows that stops at a deadline.
"""

import argparse
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_stac import accelerator, environments
from acme_stac.networks import torsos
from programs.benchmark import colocated, measuring, peaks, updates
from programs.benchmark.environments import random_actions

Row = dict[str, Any]
Options = argparse.Namespace

# Atari frames per action.
_FRAMES = 4
_AGENTS = ("impala", "stacx")
_DTYPES = ("float32", "bfloat16")
# Time between a program's first update and its measurement.
_WARM_UP_SECONDS = 3.0


class Part(NamedTuple):
  """A part of the benchmark.

  Attributes:
    cases: (options) -> the cases to measure, as rows without figures.
    measure: (cases, options, deadline) -> the measured rows, one by one.
    columns: title of a column -> format of its cells.
    share: fraction of the remaining time that the part may take.
  """

  cases: Callable[[Options], list[Row]]
  measure: Callable[[list[Row], Options, float], Iterator[Row]]
  columns: Mapping[str, str | Callable[[measuring.Row], str]]
  share: float


def describe(
  cases: list[Row], options: Options, deadline: float
) -> Iterator[Row]:
  """Yields one row: JAX's device and its rates of matrix products."""
  del cases, options, deadline
  device = jax.devices()[0]
  yield {
    "platform": device.platform,
    "kind": device.device_kind,
    "driver": _driver(),
    "devices": jax.device_count(),
    "cores": len(os.sched_getaffinity(0)),
    "products_of_float32": peaks.float32_products(),
    **{
      f"{dtype}_teraflops_measured": peaks.matrix_product_rate(dtype) / 1e12
      for dtype in _DTYPES
    },
    **{
      f"{dtype}_teraflops_peak": peaks.peak(dtype).flops_per_second / 1e12
      for dtype in _DTYPES
    },
  }


def _driver() -> str:
  gpus = [
    f"{', '.join(gpu)} MiB" for gpu in
    accelerator.nvidia_smi("--query-gpu=name,driver_version,memory.total")
  ]
  return "; ".join(gpus) or "no NVIDIA driver"


def _pooling_cases(options: Options) -> list[Row]:
  # The input of the deep torso's first pooling for a batch of 32 × 21.
  shape = (8, 12, 12, 4) if options.tiny else (672, 84, 84, 16)
  return [
    {"shape": shape, "dtype": dtype, "derivative": derivative}
    for dtype, derivative in itertools.product(
      _DTYPES, ("selecting", "scattering")
    )
  ]


def _measure_pooling(
  cases: list[Row], options: Options, deadline: float
) -> Iterator[Row]:
  """Times a gradient and a gradient through it, as metagradients need."""
  pools = {
    "selecting": torsos.max_pool_selecting,
    "scattering": torsos.max_pool_scattering,
  }
  for case in cases:
    if time.monotonic() > deadline:
      return
    pool = pools[case["derivative"]]
    key = jax.random.PRNGKey(0)
    images = jax.random.normal(
      key, case["shape"], getattr(jnp, case["dtype"])
    )
    gradient = jax.grad(
      lambda x, pool=pool: jnp.sum(jnp.square(pool(x)), dtype=jnp.float32)
    )
    second = jax.grad(lambda x, gradient=gradient: jnp.vdot(gradient(x), x))

    def milliseconds(call, images=images):
      compiled = jax.jit(call)
      cost = measuring.steady_cost(
        lambda: compiled(images).block_until_ready(),
        options.seconds_per_row / 50,
      )
      return 1e3 * cost.seconds

    yield {
      **case,
      "gradient_milliseconds": milliseconds(gradient),
      "second_milliseconds": milliseconds(second),
    }


def _learner_cases(options: Options) -> list[Row]:
  batches = (2,) if options.tiny else (32, 256)
  length = 3 if options.tiny else 20
  names = ("shallow",) if options.tiny else ("deep", "shallow")
  dtypes = _DTYPES[:1] if options.tiny else _DTYPES
  # The most telling first: the time may not do for all.
  return [
    {"torso": torso, "agent": agent, "dtype": dtype, "batch": batch,
     "length": length}
    for batch, agent, torso, dtype in itertools.product(
      batches, reversed(_AGENTS), names, dtypes
    )
  ]


def _make_update(case: Row) -> updates.MeasuredUpdate:
  config = updates.make_config(
    case["agent"], case["torso"], case["batch"], case["length"],
    compute_dtype=case["dtype"],
  )
  specs = updates.Specs(*updates.NETWORKS[case["torso"]][:2])
  return updates.MeasuredUpdate(specs, config)


def _measure_learner(
  cases: list[Row], options: Options, deadline: float
) -> Iterator[Row]:
  """Compiles and times one update after the other.

  Compilations do not overlap measurements, because XLA times kernels on the
  device while it compiles.
  """
  for case in cases:
    if time.monotonic() > deadline:
      return
    started = time.monotonic()
    try:
      update = _make_update(case)
    except RuntimeError as error:  # Out of memory, for example.
      yield {**case, "error": str(error).partition("\n")[0]}
      continue
    compile_seconds = time.monotonic() - started
    calls = max(1, int(options.seconds_per_row / 10 / update.time(2)))
    seconds = min(update.time(calls) for _ in range(2))
    rate = update.flops and update.flops / seconds
    peak = peaks.peak(case["dtype"]).flops_per_second
    yield {
      **case,
      "compile_seconds": compile_seconds,
      "milliseconds": 1e3 * seconds,
      "frames_per_second": _FRAMES * case["batch"] * case["length"] / seconds,
      "teraflops_per_second": rate and rate / 1e12,
      "share_of_peak": rate and rate / peak,
      "megabytes": update.memory_bytes / 1e6,
    }


def _emulator_cases(options: Options) -> list[Row]:
  # ale-py takes 0.1 s of one core to make an environment.
  sizes = [(1, 4), (2, 2)] if options.tiny else [(1, 64), (2, 64)]
  return [
    {"batches": batches, "environments": number} for batches, number in sizes
  ]


def _measure_emulator(
  cases: list[Row], options: Options, deadline: float
) -> Iterator[Row]:
  """Times batches of Pong, each in a thread of this process."""
  seconds = options.seconds_per_row / 3
  for case in cases:
    if time.monotonic() + seconds > deadline:
      return
    number = case["environments"]
    batches = [
      environments.make_batched("atari:pong", number, seed=index)
      for index in range(case["batches"])
    ]
    actions = random_actions(batches[0], 64)
    begin = threading.Barrier(len(batches))

    def step(environment, begin=begin, actions=actions):
      environment.reset()
      begin.wait()
      steps, started = 0, time.monotonic()
      while time.monotonic() - started < seconds:
        environment.step(actions[steps % len(actions)])
        steps += 1
      return steps / (time.monotonic() - started)

    with futures.ThreadPoolExecutor(len(batches)) as pool:
      rate = sum(pool.map(step, batches))
    for batch in batches:
      batch.close()
    yield {**case, "frames_per_second": rate * number * _FRAMES}


def _colocated_cases(options: Options) -> list[Row]:
  cases = [
    ("shallow", "stacx", "float32", "cold"),
    ("deep", "stacx", "float32", "cold"),
    ("deep", "stacx", "bfloat16", "cold"),
    ("shallow", "impala", "float32", "cold"),
    ("shallow", "stacx", "float32", "warm"),
    ("deep", "impala", "float32", "cold"),
  ]
  names = ("torso", "agent", "dtype", "cache")
  batch = 4 if options.tiny else 32
  return [
    {**dict(zip(names, case, strict=True)), "batch": batch}
    for case in (cases[:1] if options.tiny else cases)
  ]


def _measure_colocated(
  cases: list[Row], options: Options, deadline: float
) -> Iterator[Row]:
  tiny = options.tiny
  after_start = _WARM_UP_SECONDS + options.seconds_per_row
  with tempfile.TemporaryDirectory() as caches:
    for case in cases:
      left = deadline - time.monotonic() - after_start
      # Most programs start in half of the time allowed.
      if left < options.start_seconds / 2:
        return
      flags = [
        "--config=configs/atari.py:pong",
        f"--config.agent={case['agent']}",
        f"--config.stac.torso={case['torso']}",
        f"--config.stac.compute_dtype={case['dtype']}",
        f"--config.stac.batch_size={case['batch']}",
        "--config.environments_per_actor"
        f"={4 if tiny else options.environments_per_actor}",
        f"--num_actors={1 if tiny else options.num_actors}",
      ]
      # A cold start has a cache of its own: XLA keeps the times of kernels
      # there too, which other programs share.
      name = "-".join(str(case[part]) for part in ("torso", "agent", "dtype"))
      cache = os.path.join(caches, name)
      try:
        yield {**case, **colocated.measure(
          flags, cache, min(left, options.start_seconds), _WARM_UP_SECONDS,
          options.seconds_per_row,
        ), "share_of_lesser": None}
      except RuntimeError as error:
        yield {**case, "error": str(error)}


PARTS: Mapping[str, Part] = {
  "pooling": Part(_pooling_cases, _measure_pooling, {
    "pooling, of": lambda row: "×".join(map(str, row["shape"])),
    "type": "{dtype}",
    "derivative": "{derivative}",
    "gradient, ms": "{gradient_milliseconds:.2f}",
    "metagradient, ms": "{second_milliseconds:.2f}",
  }, 0.2),
  "learner": Part(_learner_cases, _measure_learner, {
    "learner": "{torso}, `{agent}`, {dtype}, {batch} × {length}",
    "update, ms": "{milliseconds:.2f}",
    "frames/s": "{frames_per_second:,.0f}",
    "TFLOP/s": lambda row: measuring.number(
      row["teraflops_per_second"], ".2f"
    ),
    "share of peak": lambda row: measuring.number(
      row["share_of_peak"], ".1%"
    ),
    "memory, MB": "{megabytes:,.0f}",
    "compiled, s": "{compile_seconds:.1f}",
  }, 0.4),
  "emulator": Part(_emulator_cases, _measure_emulator, {
    "Pong alone": "{batches} × {environments}",
    "frames/s": "{frames_per_second:,.0f}",
  }, 0.3),
  "colocated": Part(_colocated_cases, _measure_colocated, {
    "colocated Pong": "{torso}, `{agent}`, {dtype}",
    "first update, s": "{first_update_seconds:.1f} ({cache})",
    "frames/s": "{frames_per_second:,.0f}",
    "of the lesser alone": lambda row: measuring.number(
      row["share_of_lesser"], ".2f"
    ),
    "learner waits": "{learner_waits:.0%}",
    "actors: environment, inference, writing": (
      "{actors_environment:.0%}, {actors_inference:.0%}, {actors_writing:.0%}"
    ),
    "actors wait: queue, learner": "{actors_blocked:.0%}, {actors_wait:.0%}",
    "policy age": "{policy_age:.2f}",
  }, 1.0),
}
