"""Measures training that is one compiled program, and its parts.

The environments are written in JAX. Each part is compiled and timed alone, the
same way, on the same experience: the environment, the policy's inference, and
the update. Steps are counted over all seeds, which run side by side.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

import acme_stac
from acme_stac import checks, core, environments, on_device
from acme_stac.networks import make_policy
from acme_stac.on_device import loop, registry
from programs.benchmark import measuring

Row = dict[str, Any]


class Case(NamedTuple):
  """An environment with the settings of an agent.

  Attributes:
    environment: its name.
    domain: name of the preset.
    fields: of the configuration that differ from it.
  """

  environment: str
  domain: str
  fields: Mapping[str, Any]


_CASES = {
  "breakout": Case("gymnax:Breakout-MinAtar", "minatar", {}),
  "cartpole": Case("gymnax:CartPole-v1", "small", {"torso_sizes": (256, 256)}),
  "catch": Case("catch", "small_board", {"torso_sizes": (256, 256)}),
}
_PARTS = ("loop", "update", "inference", "environment")


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  parser.add_argument(
    "--cases", nargs="+", metavar="CASE", default=["breakout", "cartpole"],
    help=f"environments, of {', '.join(_CASES)}",
  )
  parser.add_argument(
    "--agents", nargs="+", metavar="AGENT", default=["impala", "stac", "stacx"],
    help="presets",
  )
  parser.add_argument(
    "--seeds", nargs="+", type=int, metavar="NUMBER", default=[1, 8, 32],
    help="numbers of runs side by side",
  )
  parser.add_argument("--batch", type=int, default=32, help="trajectories")
  parser.add_argument(
    "--length", type=int, default=20, help="transitions of a trajectory"
  )
  parser.add_argument(
    "--updates", type=int, default=4, help="updates of a compiled call"
  )
  parser.add_argument(
    "--seconds", type=float, default=1.0,
    help="length of a part's measurement in a round",
  )
  parser.add_argument(
    "--rounds", type=int, default=3,
    help="rounds in which the parts take turns; the fastest counts",
  )
  parser.add_argument(
    "--budget", type=float, default=600.0,
    help="seconds after which no further row is begun",
  )


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Measures the rows, and prints each.

  Returns:
    The device, the rows and the skipped ones.

  Raises:
    ValueError: for an unknown case or agent.
  """
  for name in options.cases:
    if name not in _CASES:
      raise ValueError(checks.unknown("case", name, _CASES))
  for name in options.agents:
    if name not in acme_stac.AGENTS:
      raise ValueError(checks.unknown("agent", name, acme_stac.AGENTS))
  started = time.monotonic()
  wanted = [
    {"case": case, "agent": agent, "seeds": seeds}
    for case in options.cases
    for seeds in options.seeds
    for agent in options.agents
  ]
  rows: list[Row] = []
  for row in wanted:
    if time.monotonic() - started > options.budget:
      break
    rows.append(measure(row, options))
    print(" | ".join(measuring.cells(rows[-1], _COLUMNS)), flush=True)
  device = jax.devices()[0]
  return {
    "device": {"platform": device.platform, "kind": device.device_kind},
    "seconds": time.monotonic() - started,
    "rows": rows,
    "skipped": wanted[len(rows):],
  }


def measure(row: Row, options: argparse.Namespace) -> Row:
  """Compiles and times the parts of a row; returns it with the figures."""
  case = _CASES[row["case"]]
  config = acme_stac.make_config(
    row["agent"], case.domain, **case.fields, batch_size=options.batch,
    trajectory_length=options.length, trajectory_overlap=0,
  )
  try:
    parts = _compile(case, config, row["seeds"], options.updates)
    costs = _time(parts, options)
  except RuntimeError as error:  # Out of memory, for example.
    return {**row, "error": str(error).partition("\n")[0]}
  steps = row["seeds"] * config.batch_size * config.trajectory_length
  loop_seconds = costs["loop"].seconds
  result = {
    **row,
    "steps_per_second": steps * config.action_repeat / loop_seconds,
    "compile_seconds": parts["loop"].compile_seconds,
  }
  for name, cost in costs.items():
    result[f"{name}_milliseconds"] = 1e3 * cost.seconds
    result[f"{name}_cpu_milliseconds"] = 1e3 * cost.cpu_seconds
    result[f"{name}_share"] = cost.seconds / loop_seconds
  return result


def _compile(
  case: Case, config: acme_stac.STACConfig, seeds: int, updates: int
) -> dict[str, "_Compiled"]:
  """Compiles the loop and its parts for as many updates."""
  environment = registry.make(case.environment)
  networks = acme_stac.make_networks(
    environments.environment_spec(environment), config
  )
  parts = _Parts(environment, networks, config, updates)
  keys = jax.random.split(jax.random.PRNGKey(0), seeds)
  state, batches = jax.jit(jax.vmap(parts.begin))(keys)
  return {
    name: _Compiled(getattr(parts, name), state, batches) for name in _PARTS
  }


class _Parts:
  """The loop and its parts, each for a number of updates.

  All but `begin` map a LoopState and that many batches [updates, T+1, B] to the
  next state and their results.
  """

  def __init__(
    self,
    environment: on_device.Environment,
    networks: acme_stac.STACNetworks,
    config: acme_stac.STACConfig,
    updates: int,
  ):
    if config.batches_to_begin != 1:
      raise ValueError("Agents with held-out batches are not measured.")
    self._environment = environment
    self._config = config
    self._updates = updates
    self._trainer = on_device.make_trainer(environment, networks, config)
    self._update = core.make_update(networks, config).update
    self._policy = make_policy(networks, config)

  def begin(self, key: jax.Array) -> Any:
    """Returns a first state, and batches of experience."""

    def collect(state, _):
      state, trajectory, _ = self._trainer.collect(state)
      return state, trajectory

    state = self._trainer.init(key)
    return jax.lax.scan(collect, state, None, length=self._updates)

  def loop(self, state: Any, batches: core.Trajectory) -> Any:
    """Trains."""
    del batches
    return self._trainer.train(state, self._updates)

  def update(self, state: Any, batches: core.Trajectory) -> Any:
    """Updates from the batches."""
    training, metrics = jax.lax.scan(self._update, state.training, batches)
    return state._replace(training=training), metrics

  def inference(self, state: Any, batches: core.Trajectory) -> Any:
    """Chooses an action in every row."""
    embedded = core.conditioning(state.training.metaparams, self._config)

    def act(carry, row):
      action, log_prob, *carry = self._policy.select_action(
        state.training.params, *row, *carry, embedded
      )
      return tuple(carry), (action, log_prob)

    rows = _rows((batches.observation, batches.step_type))
    carry, made = jax.lax.scan(act, (state.acting, state.key), rows)
    return state._replace(acting=carry[0], key=carry[1]), made

  def environment(self, state: Any, batches: core.Trajectory) -> Any:
    """Takes the actions of every row."""

    def step(carry, action):
      episodes, key = carry
      key, step_key = jax.random.split(key)
      episodes = loop.step_episodes(
        self._environment, episodes, self._policy.to_environment(action),
        step_key,
      )
      return (episodes, key), episodes.timestep

    carry, made = jax.lax.scan(
      step, (state.environments, state.key), _rows(batches.action)
    )
    return state._replace(environments=carry[0], key=carry[1]), made


def _rows(batches: Any) -> Any:
  """Returns the rows that have an action, [updates · T, ...]."""
  return jax.tree_util.tree_map(
    lambda x: x[:, :-1].reshape((-1, *x.shape[2:])), batches
  )


class _Compiled:
  """A part, compiled for all seeds, with its state.

  Attributes:
    compile_seconds: duration of tracing and compiling.
  """

  def __init__(self, part: Callable[..., Any], state: Any, batches: Any):
    started = time.perf_counter()
    call = jax.jit(on_device.map_runs(part))
    self._call = call.lower(state, batches).compile()
    self.compile_seconds = time.perf_counter() - started
    self._state, self._batches = state, batches

  def __call__(self):
    self._state, made = self._call(self._state, self._batches)
    jax.block_until_ready((self._state, made))


def _time(
  parts: Mapping[str, _Compiled], options: argparse.Namespace
) -> dict[str, measuring.Cost]:
  """Returns the least cost of each part for one update of all seeds.

  The parts take turns, so that all of them see the machine's fast moments.
  """
  calls = {}
  for name, part in parts.items():
    part()  # Warms it up.
    once = measuring.cost_of(part, 1)
    calls[name] = max(1, int(options.seconds / once.seconds))
  costs: dict[str, list[measuring.Cost]] = {name: [] for name in parts}
  for _ in range(options.rounds):
    for name, part in parts.items():
      cost = measuring.cost_of(part, calls[name])
      costs[name].append(cost.per(options.updates))
  return {name: min(of_part) for name, of_part in costs.items()}


_COLUMNS = {
  "case": "{case}",
  "agent": "`{agent}`",
  "seeds": "{seeds}",
  "steps/s": "{steps_per_second:,.0f}",
  "an update of all seeds, ms": "{loop_milliseconds:.2f}",
  "alone: update, inference, environment": (
    "{update_share:.0%}, {inference_share:.0%}, {environment_share:.0%}"
  ),
  "compiled, s": "{compile_seconds:.1f}",
}


def table(result: dict[str, Any]) -> str:
  """Returns Markdown: the device, the rows and how many were skipped."""
  lines = [
    "", f"{result['device']['platform']}: {result['device']['kind']}", "",
    measuring.table(result["rows"], _COLUMNS),
  ]
  if result["skipped"]:
    lines += ["", f"Skipped for want of time: {len(result['skipped'])} rows."]
  return "\n".join(lines)
