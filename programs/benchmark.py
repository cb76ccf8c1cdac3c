"""Measures what the parts of a run cost.

  python -m programs.benchmark learner --torso=mlp --output=learner.json
  python -m programs.benchmark environments --output=environments.json

learner times every agent's jitted update on the same batch in interleaved
rounds and prints its ratio to IMPALA's, round by round. Needs only
`acme_stac.core` and `acme_stac.networks`, so it runs wherever JAX does: on CPU,
GPU or TPU.

environments steps every environment of the papers with random actions, one and
a batch at a time, and says which could not be made. --names takes others.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
import time
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs

import acme_stac
from acme_stac import core, environments
from acme_stac.environments.check import random_action

_IMAGE = specs.BoundedArray((84, 84, 4), np.uint8, 0, 255)
_FEATURES = specs.Array((17,), np.float32)
# Name -> observation spec, action spec and fields of the configuration.
NETWORKS: dict[str, tuple[specs.Array, specs.Array, dict[str, Any]]] = {
  "mlp": (
    _FEATURES,
    specs.DiscreteArray(6),
    {"torso": "mlp", "torso_sizes": (256, 256)},
  ),
  "mlp_lstm": (
    _FEATURES,
    specs.BoundedArray((6,), np.float32, -1.0, 1.0),
    {"torso": "mlp", "torso_sizes": (256, 256), "lstm_size": 256},
  ),
  "shallow": (_IMAGE, specs.DiscreteArray(6), {"torso": "shallow"}),
  "deep": (_IMAGE, specs.DiscreteArray(6), {"torso": "deep"}),
}


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


class _Measured:
  """One agent's compiled update with its state and data on the device."""

  def __init__(self, agent: str, network: str, batch: int, length: int):
    observation, action, fields = NETWORKS[network]
    # The same networks and batches for every agent, whatever its preset.
    config = acme_stac.make_config(
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
    specification = acme_stac.environments.EnvironmentSpec(
      observation, action, None, None
    )
    networks = acme_stac.make_networks(specification, config)
    update = core.make_update(networks, config)
    self._state = update.init(jax.random.PRNGKey(0))
    batches = config.batches_per_update + config.batches_ahead
    self._data = [
      jax.device_put(random_trajectory(networks, observation, config, seed))
      for seed in range(batches)
    ]
    compiled = jax.jit(update.update).lower(self._state, *self._data).compile()
    self._update = compiled
    memory: Any = compiled.memory_analysis()
    self.memory_bytes = (
      memory.temp_size_in_bytes
      + memory.argument_size_in_bytes
      + memory.output_size_in_bytes
    )
    self.flops = float((compiled.cost_analysis() or {}).get("flops", 0.0))
    self.time(1)

  def time(self, updates: int) -> float:
    """Returns the seconds of one update, the mean of some."""
    started = time.perf_counter()
    for _ in range(updates):
      self._state, metrics = self._update(self._state, *self._data)
    jax.block_until_ready((self._state, metrics))
    return (time.perf_counter() - started) / updates


def _machine() -> dict[str, str]:
  """Returns where and when something is measured."""
  return {
    "machine": platform.platform(),
    "python": platform.python_version(),
    "date": datetime.date.today().isoformat(),
  }


def measure_learner(
  agents: list[str],
  network: str,
  batch: int,
  length: int,
  rounds: int,
  seconds: float,
) -> dict[str, Any]:
  """Measures updates; every round times each agent, IMPALA first.

  Args:
    agents: names of presets.
    network: a name of `NETWORKS`.
    batch: trajectories B.
    length: transitions T.
    rounds: rounds.
    seconds: time that an agent has in each round.

  Returns:
    What was measured, with the machine and versions.
  """
  names = ["impala", *[name for name in agents if name != "impala"]]
  measured = {}
  for name in names:
    print(f"compiling {name}", file=sys.stderr)
    measured[name] = _Measured(name, network, batch, length)
  updates = {
    name: max(1, int(seconds / agent.time(2)))
    for name, agent in measured.items()
  }
  times: dict[str, list[float]] = {name: [] for name in names}
  for number in range(rounds):
    print(f"round {number + 1}/{rounds}", file=sys.stderr)
    for name, agent in measured.items():
      times[name].append(agent.time(updates[name]))
  rows = []
  for name, agent in measured.items():
    ratios = [a / b for a, b in zip(times[name], times["impala"], strict=True)]
    rows.append({
      "agent": name,
      "milliseconds": 1e3 * statistics.median(times[name]),
      "time_ratio": statistics.median(ratios),
      "time_ratio_min": min(ratios),
      "time_ratio_max": max(ratios),
      "megabytes": agent.memory_bytes / 1e6,
      "memory_ratio": agent.memory_bytes / measured["impala"].memory_bytes,
      "flops_ratio": agent.flops / max(measured["impala"].flops, 1.0),
    })
  device = jax.devices()[0]
  return {
    "network": network,
    "batch_size": batch,
    "trajectory_length": length,
    "rounds": rounds,
    "device": f"{device.platform}: {device.device_kind}",
    "jax": jax.__version__,
    **_machine(),
    "rows": rows,
  }


def format_table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `measure_learner` gives."""
  lines = [
    "| agent | update, ms | time / IMPALA (min–max) | memory, MB"
    " | memory / IMPALA | FLOPs / IMPALA |",
    "|---|---|---|---|---|---|",
  ]
  for row in result["rows"]:
    lines.append(
      f"| `{row['agent']}` | {row['milliseconds']:.1f} |"
      f" {row['time_ratio']:.2f} ({row['time_ratio_min']:.2f}–"
      f"{row['time_ratio_max']:.2f}) | {row['megabytes']:.0f} |"
      f" {row['memory_ratio']:.2f} | {row['flops_ratio']:.2f} |"
    )
  return "\n".join(lines)


def all_environments() -> list[str]:
  """Returns the names of every game and task of the papers' benchmarks."""
  from acme_stac.environments import control, rwrl
  from acme_stac.evaluation import scores

  tasks = ["/".join(task) for task in control.suite.ALL_TASKS]
  return [
    "catch",
    "gymnasium:CartPole-v1",
    *[f"atari:{game}" for game in scores.atari_57()],
    *[f"control:{task}" for task in tasks],
    *[f"control_pixels:{task}" for task in tasks],
    *[f"rwrl:{name}" for name in rwrl.all_levels()],
  ]


def measure_environments(
  names: list[str], batch: int, steps: int
) -> dict[str, Any]:
  """Makes, checks and steps environments, singly and in batches.

  Args:
    names: of environments.
    batch: members of a batch.
    steps: steps of the batch, after a reset; a single one makes as many.

  Returns:
    A row for each name: steps (of the environment, so frames for Atari) per
    second, or what was wrong.
  """
  rows = []
  for number, name in enumerate(names):
    print(f"{number + 1}/{len(names)} {name}", file=sys.stderr)
    try:
      row = {
        "environment": name,
        "one": _steps_per_second(name, 1, steps),
        "batch": _steps_per_second(name, batch, steps),
      }
    except Exception as error:  # It is one of many: say so and go on.
      row = {"environment": name, "error": f"{error}"}
    rows.append(row)
  return {
    "batch": batch,
    "steps": steps,
    **_machine(),
    "rows": rows,
  }


def _steps_per_second(name: str, members: int, steps: int) -> float:
  environment = environments.make_batched(name, members, seed=0)
  try:
    if members == 1:
      environments.check(environment, max_seconds=0.1)
    spec = environment.action_spec()
    rng = np.random.default_rng(0)
    actions = [
      np.stack([random_action(spec, rng) for _ in range(members)])
      for _ in range(steps)
    ]
    environment.reset()
    started = time.perf_counter()
    for action in actions:
      environment.step(action)
    seconds = time.perf_counter() - started
    return steps * members * environment.action_repeat / seconds
  finally:
    environment.close()


def format_environments(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `measure_environments` gives."""
  lines = [
    f"| environment | one, steps/s | {result['batch']}, steps/s |",
    "|---|---|---|",
  ]
  for row in result["rows"]:
    if "error" in row:
      lines.append(f"| `{row['environment']}` | {row['error']} | |")
    else:
      lines.append(
        f"| `{row['environment']}` | {row['one']:,.0f} | {row['batch']:,.0f} |"
      )
  return "\n".join(lines)


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("what", choices=["learner", "environments"])
  parser.add_argument(
    "--agents", nargs="+", default=list(acme_stac.AGENTS), metavar="AGENT",
    choices=list(acme_stac.AGENTS), help="presets; all by default",
  )
  parser.add_argument("--torso", choices=list(NETWORKS), default="mlp")
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--length", type=int, default=20)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument(
    "--seconds", type=float, default=1.0, help="of each agent in a round"
  )
  parser.add_argument(
    "--names", nargs="+", metavar="NAME", help="environments; all by default"
  )
  parser.add_argument(
    "--steps", type=int, default=100, help="steps of each environment"
  )
  parser.add_argument("--output", help="JSON file for the figures")
  options = parser.parse_args(argv[1:])
  if min(options.rounds, options.steps, options.batch) < 1:
    parser.error("--rounds, --steps and --batch must be at least 1")
  if options.seconds <= 0:
    parser.error("--seconds must be positive")
  try:
    if options.what == "environments":
      result = measure_environments(
        options.names or all_environments(), options.batch, options.steps
      )
      print(format_environments(result))
    else:
      result = measure_learner(
        options.agents,
        options.torso,
        options.batch,
        options.length,
        options.rounds,
        options.seconds,
      )
      print(format_table(result))
  except ValueError as error:
    parser.error(str(error))
  if options.output:
    with open(options.output, "w") as file:
      json.dump(result, file, indent=2)
  return 1 if any("error" in row for row in result["rows"]) else 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
