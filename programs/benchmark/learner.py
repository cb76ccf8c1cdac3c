"""Times every agent's jitted update on the same batch, in interleaved rounds.

Needs only `acme_stac.core` and `acme_stac.networks`, so it runs wherever JAX
does: on CPU, GPU or TPU.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import jax

import acme_stac
from acme_stac.config import CHOICES
from programs.benchmark import measuring, peaks, updates

AGENTS = ("impala", "impala_aux", "stac", "stacx")


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--agents", nargs="+", default=list(AGENTS), metavar="AGENT",
    choices=list(acme_stac.AGENTS), help="presets",
  )
  parser.add_argument(
    "--networks", nargs="+", default=["mlp"], choices=list(updates.NETWORKS)
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
    "--bootstrap_steps", nargs="+", type=int, default=[1], metavar="L",
    help="of agents that bootstrap their metagradient",
  )
  parser.add_argument(
    "--devices", nargs="+", type=int, default=[1], metavar="N",
    help="that share N batches",
  )
  parser.add_argument(
    "--dtype", default="float32", choices=CHOICES["compute_dtype"],
    help="compute_dtype of the networks",
  )
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument(
    "--seconds", type=float, default=1.0, help="of each agent in a round"
  )


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
  peak = peaks.peak(options.dtype)
  rows = []
  for case in itertools.product(
    options.networks, options.batch, options.length,
    options.heads or [None], options.devices,
  ):
    rows += _measure(*case, peak.flops_per_second, options)
  device = jax.devices()[0]
  return {
    "rounds": options.rounds,
    "device": f"{device.platform}: {device.device_kind}",
    "jax": jax.__version__,
    "dtype": options.dtype,
    "peak_gigaflops": peak.flops_per_second / 1e9,
    "peak_source": peak.source,
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
  agents = _variants(
    ["impala", *[name for name in options.agents if name != "impala"]],
    options.bootstrap_steps,
  )
  measured = {}
  for name, (agent, fields) in agents.items():
    print(
      f"{network}, batch {batch} × {length}: compiling {name}",
      file=sys.stderr,
    )
    config = updates.make_config(
      agent, network, batch * devices, length, heads,
      compute_dtype=options.dtype, **fields,
    )
    measured[name] = updates.MeasuredUpdate(
      updates.Specs(*updates.NETWORKS[network][:2]), config, devices
    )
  calls = {
    name: max(1, int(options.seconds / update.time(2)))
    for name, update in measured.items()
  }
  times: dict[str, list[float]] = {name: [] for name in agents}
  for number in range(options.rounds):
    print(f"round {number + 1}/{options.rounds}", file=sys.stderr)
    for name, update in measured.items():
      times[name].append(update.time(calls[name]))
  # The devices of a CPU share its cores.
  if jax.default_backend() != "cpu":
    peak *= devices
  impala = measured["impala"]
  rows = []
  for name, update in measured.items():
    ratios = [a / b for a, b in zip(times[name], times["impala"], strict=True)]
    seconds = statistics.median(times[name])
    flops = update.flops
    rows.append({
      "network": network,
      "batch": batch,
      "length": length,
      "agent": name,
      "heads": update.config.num_heads,
      "metaparameters": len(update.config.self_tuned),
      "milliseconds": 1e3 * seconds,
      "devices": devices,
      "steps_per_second": batch * devices * length / seconds,
      "time_ratio": statistics.median(ratios),
      "time_ratio_min": min(ratios),
      "time_ratio_max": max(ratios),
      "megabytes": update.memory_bytes / 1e6,
      "memory_ratio": update.memory_bytes / impala.memory_bytes,
      "gigaflops": flops and flops / 1e9,
      "flops_ratio": flops and impala.flops and flops / impala.flops,
      "share_of_peak": flops and flops / seconds / peak,
    })
  return rows


def _variants(
  agents: Sequence[str], bootstrap_steps: Sequence[int]
) -> dict[str, tuple[str, dict[str, Any]]]:
  """Returns name -> (preset, further fields) of what is measured."""
  variants: dict[str, tuple[str, dict[str, Any]]] = {}
  for agent in agents:
    if acme_stac.AGENTS[agent].get("outer_loss") != "bootstrap":
      variants[agent] = agent, {}
      continue
    for steps in bootstrap_steps:
      variants[f"{agent}, L = {steps}"] = agent, {"bootstrap_steps": steps}
  return variants


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `run` gives."""
  number = measuring.number
  return measuring.table(result["rows"], {
    "network": "{network}",
    "batch": lambda row: (
      f"{row['batch']} × {row['length']}"
      + (f" on each of {row['devices']}" if row["devices"] > 1 else "")
    ),
    "agent (heads)": "`{agent}` ({heads})",
    "update, ms": "{milliseconds:.1f}",
    "time / IMPALA (min–max)": (
      "{time_ratio:.2f} ({time_ratio_min:.2f}–{time_ratio_max:.2f})"
    ),
    "memory, MB": "{megabytes:.0f}",
    "memory / IMPALA": "{memory_ratio:.2f}",
    "steps/s": "{steps_per_second:,.0f}",
    "FLOPs / IMPALA": lambda row: number(row["flops_ratio"], ".2f"),
    "share of peak": lambda row: number(row["share_of_peak"], ".0%"),
  })
