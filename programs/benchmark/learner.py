"""Times every agent's jitted update on the same batch, in interleaved rounds.

Needs only `acme_stac.core` and `acme_stac.networks`, so it runs wherever JAX
does: on CPU, GPU or TPU.
"""

import argparse
import functools
import itertools
import statistics
import sys
import time
from typing import Any, NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
from dm_env import specs

import acme_stac
from acme_stac import core
from programs.benchmark import measuring

AGENTS = ("impala", "impala_aux", "stac", "stacx")
_IMAGE = specs.BoundedArray((84, 84, 4), np.uint8, 0, 255)
_FEATURES = specs.Array((17,), np.float32)
_CONTINUOUS = specs.BoundedArray((6,), np.float32, -1.0, 1.0)
# Name -> observation spec, action spec and fields of the configuration.
NETWORKS: dict[str, tuple[specs.Array, specs.Array, dict[str, Any]]] = {
  "mlp": (
    _FEATURES,
    specs.DiscreteArray(6),
    {"torso": "mlp", "torso_sizes": (256, 256)},
  ),
  "mlp_lstm": (
    _FEATURES,
    _CONTINUOUS,
    {"torso": "mlp", "torso_sizes": (256, 256), "lstm_size": 256},
  ),
  "shallow": (_IMAGE, specs.DiscreteArray(6), {"torso": "shallow"}),
  "deep": (_IMAGE, specs.DiscreteArray(6), {"torso": "deep"}),
}


class Specs(NamedTuple):
  """As much of an environment's specs as networks need."""

  observations: specs.Array
  actions: specs.Array


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--agents", nargs="+", default=list(AGENTS), metavar="AGENT",
    choices=list(acme_stac.AGENTS), help="presets",
  )
  parser.add_argument(
    "--networks", nargs="+", default=["mlp"], choices=list(NETWORKS)
  )
  parser.add_argument(
    "--batch", nargs="+", type=int, default=[32], help="trajectories"
  )
  parser.add_argument(
    "--length", nargs="+", type=int, default=[20], help="transitions"
  )
  parser.add_argument(
    "--heads", nargs="+", type=int, metavar="P",
    help="in place of the preset's, where that has several",
  )
  parser.add_argument(
    "--devices", nargs="+", type=int, default=[1], metavar="N",
    help="that share N batches",
  )
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument(
    "--seconds", type=float, default=1.0, help="of each agent in a round"
  )


def random_trajectory(
  networks: acme_stac.STACNetworks,
  observation: specs.Array,
  config: acme_stac.STACConfig,
  seed: int = 0,
) -> core.Trajectory:
  """Returns a trajectory [T+1, B] of random numbers."""
  rng = np.random.default_rng(seed)
  shape = (config.trajectory_length + 1, config.batch_size)
  space = networks.action_space.spec
  if isinstance(space, specs.DiscreteArray):
    action = rng.integers(0, space.num_values, shape).astype(np.int32)
  else:
    action = rng.uniform(-0.9, 0.9, (*shape, *space.shape)).astype(np.float32)
  if observation.dtype == np.uint8:
    observations = rng.integers(0, 255, (*shape, *observation.shape), np.uint8)
  else:
    observations = rng.normal(size=(*shape, *observation.shape)).astype("f")
  return core.Trajectory(
    observation=observations,
    action=action,
    reward=rng.normal(size=shape).astype(np.float32),
    discount=np.ones(shape, np.float32),
    step_type=np.full(shape, dm_env.StepType.MID, np.int32),
    behaviour_log_prob=np.full(shape, -1.8, np.float32),
    core_state=networks.initial_state(config.batch_size),
  )


class MeasuredUpdate:
  """A compiled update with its state and random data on the devices."""

  def __init__(self, spec: Any, config: acme_stac.STACConfig, devices: int = 1):
    """Compiles.

    Args:
      spec: an environment's, or as much of it as `Specs` has.
      config: the agent's configuration.
      devices: that share the batch.
    """
    self.heads = config.num_heads
    self.metaparameters = len(config.self_tuned)
    networks = acme_stac.make_networks(spec, config)
    update = core.make_update(networks, config)
    parallel = core.data_parallel(update, config, jax.devices()[:devices])
    self._state = jax.device_put(
      update.init(jax.random.PRNGKey(0)), parallel.state_sharding
    )
    batches = config.batches_to_begin
    self._data = [
      parallel.put(
        random_trajectory(networks, spec.observations, config, seed)
      )
      for seed in range(batches)
    ]
    compiled = parallel.update.lower(self._state, *self._data).compile()
    self._update = compiled
    memory: Any = compiled.memory_analysis()
    self.memory_bytes = (
      memory.temp_size_in_bytes
      + memory.argument_size_in_bytes
      + memory.output_size_in_bytes
    )
    # Of an LSTM the compiler counts one time step.
    self.flops = (
      float((compiled.cost_analysis() or {}).get("flops", 0.0))
      if config.lstm_size is None
      else None
    )
    self.time(1)

  def time(self, updates: int) -> float:
    """Returns the seconds of one update, the mean of some."""
    started = time.perf_counter()
    for _ in range(updates):
      self._state, metrics = self._update(self._state, *self._data)
    jax.block_until_ready((self._state, metrics))
    return (time.perf_counter() - started) / updates


def _make_config(
  agent: str,
  network: str,
  batch: int,
  length: int,
  heads: int | None,
) -> acme_stac.STACConfig:
  """Returns the same networks and batches for every agent."""
  fields = NETWORKS[network][2]
  if heads is not None and acme_stac.AGENTS[agent]["num_heads"] > 1:
    fields = {**fields, "num_heads": heads}
  return acme_stac.make_config(
    agent,
    "atari",
    **{
      "torso_sizes": (16, 32, 32),
      "head_sizes": (256,),
      **fields,
      "batch_size": batch,
      "trajectory_length": length,
      "trajectory_overlap": 0,
    },
  )


@functools.cache
def matrix_product_peak() -> float:
  """Returns FLOP/s of the best matrix product in float32, measured here."""
  size = 1024 if jax.default_backend() == "cpu" else 8192
  matrix = jnp.ones((size, size), jnp.float32)
  product = jax.jit(jnp.matmul)

  def call():
    product(matrix, matrix).block_until_ready()

  seconds = min(
    measuring.steady_cost(call, 0.1).seconds for _ in range(5)
  )
  return 2.0 * size**3 / seconds


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Measures updates; every round times each agent, IMPALA first.

  Returns:
    A row for each network, batch size, length, number of heads, number of
    devices and agent.
  """
  if max(options.devices) > jax.device_count():
    raise ValueError(
      f"There are {jax.device_count()} devices. On a CPU,"
      " XLA_FLAGS=--xla_force_host_platform_device_count=N makes some."
    )
  several = [acme_stac.AGENTS[name]["num_heads"] > 1 for name in options.agents]
  if options.heads and not any(several):
    raise ValueError(
      "--heads is for agents with several, such as --agents stacx; got"
      f" {options.agents}."
    )
  peak = matrix_product_peak()
  rows = []
  for case in itertools.product(
    options.networks, options.batch, options.length,
    options.heads or [None], options.devices,
  ):
    rows += _measure(*case, peak, options)
  device = jax.devices()[0]
  return {
    "rounds": options.rounds,
    "device": f"{device.platform}: {device.device_kind}",
    "jax": jax.__version__,
    "matrix_product_gigaflops": peak / 1e9,
    "rows": rows,
  }


def _measure(
  network: str,
  batch: int,
  length: int,
  heads: int | None,
  devices: int,
  peak: float,
  options: argparse.Namespace,
) -> list[dict[str, Any]]:
  names = ["impala", *[name for name in options.agents if name != "impala"]]
  specification = Specs(*NETWORKS[network][:2])
  measured = {}
  for name in names:
    print(
      f"{network}, batch {batch} × {length}: compiling {name}",
      file=sys.stderr,
    )
    measured[name] = MeasuredUpdate(
      specification,
      _make_config(name, network, batch * devices, length, heads),
      devices,
    )
  updates = {
    name: max(1, int(options.seconds / agent.time(2)))
    for name, agent in measured.items()
  }
  times: dict[str, list[float]] = {name: [] for name in names}
  for number in range(options.rounds):
    print(f"round {number + 1}/{options.rounds}", file=sys.stderr)
    for name, agent in measured.items():
      times[name].append(agent.time(updates[name]))
  rows = []
  for name, agent in measured.items():
    ratios = [a / b for a, b in zip(times[name], times["impala"], strict=True)]
    seconds = statistics.median(times[name])
    rows.append({
      "network": network,
      "batch": batch,
      "length": length,
      "agent": name,
      "heads": agent.heads,
      "metaparameters": agent.metaparameters,
      "milliseconds": 1e3 * seconds,
      "devices": devices,
      "steps_per_second": batch * devices * length / seconds,
      "time_ratio": statistics.median(ratios),
      "time_ratio_min": min(ratios),
      "time_ratio_max": max(ratios),
      "megabytes": agent.memory_bytes / 1e6,
      "memory_ratio": agent.memory_bytes / measured["impala"].memory_bytes,
      **_flops(agent, measured["impala"], seconds, devices, peak),
    })
  return rows


def _flops(
  agent: MeasuredUpdate,
  impala: MeasuredUpdate,
  seconds: float,
  devices: int,
  peak: float,
) -> dict[str, float | None]:
  if agent.flops is None or not impala.flops:
    return {"gigaflops": None, "flops_ratio": None, "share_of_peak": None}
  # The compiler counts one device's. Those of a CPU share its cores.
  shared = devices if jax.default_backend() == "cpu" else 1
  return {
    "gigaflops": agent.flops / 1e9,
    "flops_ratio": agent.flops / impala.flops,
    "share_of_peak": shared * agent.flops / seconds / peak,
  }


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `run` gives."""

  def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)

  return measuring.table(result["rows"], {
    "network": lambda row: row["network"],
    "batch": lambda row: (
      f"{row['batch']} × {row['length']}"
      + (f" on each of {row['devices']}" if row["devices"] > 1 else "")
    ),
    "agent (heads)": lambda row: f"`{row['agent']}` ({row['heads']})",
    "update, ms": lambda row: f"{row['milliseconds']:.1f}",
    "time / IMPALA (min–max)": lambda row: (
      f"{row['time_ratio']:.2f}"
      f" ({row['time_ratio_min']:.2f}–{row['time_ratio_max']:.2f})"
    ),
    "memory, MB": lambda row: f"{row['megabytes']:.0f}",
    "memory / IMPALA": lambda row: f"{row['memory_ratio']:.2f}",
    "steps/s": lambda row: f"{row['steps_per_second']:,.0f}",
    "FLOPs / IMPALA": lambda row: number(row["flops_ratio"], ".2f"),
    "share of peak": lambda row: number(row["share_of_peak"], ".0%"),
  })
