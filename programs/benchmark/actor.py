"""The cost of a step outside the learner: environment, inference and queue.

Each part runs alone in this process, for several numbers of environments that
step together: the environment with random actions; inference on one time step;
the loop of both; writing trajectories to the queue; and reading them as
batches.
"""

import argparse
import itertools
import sys
import time
from typing import Any

import jax
import numpy as np
import reverb

from acme_stac import environment_loop
from acme_stac.agent import queues
from acme_stac.config import STACConfig
from acme_stac.core import conditioning, init_metaparams
from acme_stac.networks import STACNetworks, make_networks, make_policy
from acme_stac.training import AgentBuilder
from programs.benchmark import cases, measuring
from programs.benchmark.environments import random_actions
from programs.run import experiment as experiment_lib

_PARTS = ("environment", "inference", "both", "writing", "reading")


def add_arguments(parser: argparse.ArgumentParser):
  """Defines this benchmark's flags."""
  cases.add_arguments(parser)
  parser.add_argument(
    "--batch", nargs="+", type=int, default=[1, 4, 16, 32],
    help="environments that step together",
  )
  parser.add_argument(
    "--seconds", type=float, default=2.0, help="of each measurement"
  )


def run(options: argparse.Namespace) -> dict[str, Any]:
  """Returns a row for each case and number of environments."""
  rows = []
  for case, number in itertools.product(options.cases, options.batch):
    print(f"{case}, {number} environments", file=sys.stderr)
    experiment = cases.make_experiment(
      case, "impala", f"--config.environments_per_actor={number}",
      f"--config.stac.batch_size={number}",
    )
    costs = measure(experiment, options.seconds)
    rows.append({
      "case": case,
      "environments": number,
      **{f"{part}_seconds": costs[part].seconds for part in _PARTS},
      **{f"{part}_cpu_seconds": costs[part].cpu_seconds for part in _PARTS},
    })
  return {"rows": rows}


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of the result of `run`."""

  def rate(part: str):
    return lambda row: f"{1 / row[f'{part}_seconds']:,.0f}"

  return measuring.table(result["rows"], {
    "case": "{case}",
    "environments": "{environments}",
    **{f"{part}, steps/s": rate(part) for part in _PARTS},
  })


class _Variables:
  """A variable source whose parameters never change."""

  def __init__(self, networks: STACNetworks, config: STACConfig):
    self._variables = jax.device_get({
      "policy": networks.init(jax.random.PRNGKey(0)),
      "version": 0,
      "conditioning": conditioning(init_metaparams(config), config),
    })

  def get_variables(self, names):
    return [self._variables[name] for name in names]


def measure(
  experiment: experiment_lib.Experiment, seconds: float
) -> dict[str, measuring.Cost]:
  """Measures the costs of one environment step (frame) of an experiment.

  Args:
    experiment: defines the environment, the networks and how many environments
      step together.
    seconds: duration of each measurement.

  Returns:
    Costs by name: "environment", "inference", "both", "writing", "reading".
  """
  members = experiment.environments_per_actor
  agent = AgentBuilder(experiment.config, environments_per_actor=members)
  networks = make_networks(experiment.environment_spec, experiment.config)
  variables = _Variables(networks, experiment.config)
  policy = make_policy(networks, experiment.config)

  def make_actor(adder=None):
    actor = agent.make_actor(jax.random.PRNGKey(0), policy, variables, adder)
    actor.fetch_variables()
    return actor

  environment = experiment.make_environment(members, seed=0)
  try:
    costs = {
      "environment": _environment_cost(environment, seconds),
      "inference": _inference_cost(environment, make_actor(), seconds),
    }
    loop = environment_loop.BatchedEnvironmentLoop(
      environment, make_actor(), update=False
    )
    costs["both"] = measuring.steady_cost(loop.step, seconds)
    costs |= _queue_costs(agent, experiment, environment, make_actor, seconds)
    steps = members * environment.action_repeat
    return {name: cost.per(steps) for name, cost in costs.items()}
  finally:
    environment.close()


def _environment_cost(environment, seconds: float) -> measuring.Cost:
  actions = itertools.cycle(random_actions(environment, 100))
  environment.reset()
  return measuring.steady_cost(
    lambda: environment.step(next(actions)), seconds
  )


def _inference_cost(environment, actor, seconds: float) -> measuring.Cost:
  timestep = environment.reset()
  actor.observe_first(timestep)

  def infer():
    actor.start(timestep)
    actor.finish()

  return measuring.steady_cost(infer, seconds)


def _queue_costs(
  agent, experiment, environment, make_actor, seconds: float
) -> dict[str, measuring.Cost]:
  """Returns the costs of writing and of reading one step of all members."""
  config, spec = experiment.config, experiment.environment_spec
  server = reverb.Server([queues.make_table(agent, spec)])
  try:
    queue = queues.ReverbQueue(reverb.Client(f"localhost:{server.port}"))
    actor = make_actor(agent.make_adder(queue, spec))
    timestep = environment.reset()
    actor.observe_first(timestep)
    actor.start(timestep)
    timestep = environment.step(actor.finish())
    batches = iter(agent.make_batches(queue))
    fresh = config.trajectory_length - config.trajectory_overlap
    rows = fresh * config.batch_size // environment.num_environments

    def write(rows: int = rows):
      for _ in range(rows):
        actor.observe(timestep)

    # The first item takes more rows than those that share some.
    write(config.trajectory_overlap)
    costs: list[tuple[measuring.Cost, measuring.Cost]] = []
    # A batch can only be read once it is written.
    deadline = time.monotonic() + 2 * seconds
    while time.monotonic() < deadline or len(costs) < 5:
      costs.append((
        measuring.cost_of(write, 1),
        measuring.cost_of(lambda: next(batches), 1),
      ))
  finally:
    server.stop()
  # The first ones open streams.
  writing, reading = np.mean(costs[2:], axis=0).tolist()
  return {
    "writing": measuring.Cost(*writing).per(rows),
    "reading": measuring.Cost(*reading).per(rows),
  }
