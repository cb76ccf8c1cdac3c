"""What a step costs an actor: environment, inference, both, and the queue.

Each part runs by itself in this process, per number of environments that step
together: the environment with random actions; inference on one time step; the
loop of both; and what it takes to write trajectories to the queue and to read
them as batches.
"""

import argparse
import sys
from typing import Any

import jax
import numpy as np
import reverb

from acme_stac import environment_loop, environments
from acme_stac.agent import queues
from acme_stac.config import STACConfig
from acme_stac.core import conditioning, init_metaparams
from acme_stac.environments.check import random_action
from acme_stac.networks import STACNetworks, make_networks, make_policy
from acme_stac.training import AgentBuilder
from programs.benchmark import cases, measuring
from programs.run import experiment as experiment_lib
from programs.run import validation


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
  for case in options.cases:
    for number in options.batch:
      print(f"{case}, {number} environments", file=sys.stderr)
      config = cases.make_config(case, "impala")
      config.environments_per_actor = number
      config.stac.batch_size = number
      experiment = validation.make_experiment(config, 1, "/nowhere")
      costs = measure(experiment, options.seconds)
      rows.append({
        "case": case,
        "environments": number,
        **{f"{name}_seconds": cost.seconds for name, cost in costs.items()},
        **{
          f"{name}_cpu_seconds": cost.cpu_seconds
          for name, cost in costs.items()
        },
      })
  return {"rows": rows}


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
  """Returns the costs of one environment step (frame) of an experiment.

  Args:
    experiment: says environment, networks and how many step together.
    seconds: duration of each measurement.

  Returns:
    Costs by name: "environment", "inference", "both", "writing", "reading".
  """
  members = experiment.environments_per_actor
  agent = AgentBuilder(experiment.config, environments_per_actor=members)
  spec = experiment.environment_spec
  networks = make_networks(spec, experiment.config)
  variables = _Variables(networks, experiment.config)
  policy = make_policy(networks, experiment.config)

  def make_actor(adder=None):
    actor = agent.make_actor(
      jax.random.PRNGKey(0), policy, variables, adder
    )
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
    steps = members * environment.action_repeat
    costs.update(
      _queue_costs(agent, experiment, environment, make_actor, seconds)
    )
  finally:
    environment.close()
  return {
    name: measuring.Cost(cost.seconds / steps, cost.cpu_seconds / steps)
    for name, cost in costs.items()
  }


def _environment_cost(
  environment: environments.BatchedEnvironment, seconds: float
) -> measuring.Cost:
  rng = np.random.default_rng(0)
  spec = environment.action_spec()
  actions = [
    np.stack([
      random_action(spec, rng) for _ in range(environment.num_environments)
    ])
    for _ in range(100)
  ]
  environment.reset()
  turn = iter(range(sys.maxsize))
  return measuring.steady_cost(
    lambda: environment.step(actions[next(turn) % 100]), seconds
  )


def _inference_cost(environment, actor, seconds: float) -> measuring.Cost:
  timestep = environment.reset()
  actor.observe_first(timestep)

  def infer():
    actor.start(timestep)
    actor.finish()

  return measuring.steady_cost(infer, seconds)


def _queue_costs(agent, experiment, environment, make_actor, seconds: float):
  """Returns costs of a step of all members: writing it, and reading it."""
  members = environment.num_environments
  spec = experiment.environment_spec
  server = reverb.Server([queues.make_table(agent, spec)])
  try:
    queue = queues.ReverbQueue(reverb.Client(f"localhost:{server.port}"))
    adder = agent.make_adder(queue, spec)
    actor = make_actor(adder)
    timestep = environment.reset()
    actor.observe_first(timestep)
    actor.start(timestep)
    timestep = environment.step(actor.finish())
    batches = iter(agent.make_batches(queue))
    config = experiment.config
    fresh = config.trajectory_length - config.trajectory_overlap
    rows = fresh * config.batch_size // members

    def write():
      for _ in range(rows):
        actor.observe(timestep)

    # The first item takes more rows than those that share some.
    for _ in range(config.trajectory_overlap):
      actor.observe(timestep)
    both = _alternate(write, lambda: next(batches), seconds)
  finally:
    server.stop()
  return {
    name: measuring.Cost(cost.seconds / rows, cost.cpu_seconds / rows)
    for name, cost in zip(("writing", "reading"), both, strict=True)
  }


def _alternate(first, second, seconds: float):
  """Returns the costs of two calls of which the second needs the first."""
  totals = []
  calls = 0
  elapsed = 0.0
  while elapsed < 2 * seconds or calls < 5:
    pair = measuring.cost_of(first, 1), measuring.cost_of(second, 1)
    elapsed += pair[0].seconds + pair[1].seconds
    calls += 1
    totals.append(pair)
  # The first ones open streams.
  totals = totals[2:]
  return [
    measuring.Cost(
      float(np.mean([pair[i].seconds for pair in totals])),
      float(np.mean([pair[i].cpu_seconds for pair in totals])),
    )
    for i in range(2)
  ]


def table(result: dict[str, Any]) -> str:
  """Returns a Markdown table of what `run` gives."""

  def rate(name: str):
    return lambda row: f"{1 / row[f'{name}_seconds']:,.0f}"

  parts = ("environment", "inference", "both", "writing", "reading")
  return measuring.table(result["rows"], {
    "case": lambda row: row["case"],
    "environments": lambda row: f"{row['environments']}",
    **{f"{name}, steps/s": rate(name) for name in parts},
  })
