"""Runs the nodes of this host as processes of their own."""

import os
import signal

import launchpad as lp

from programs.launch import graph, hosts, launchpad_internals, supervision
from programs.launch.ending import Interrupted, NodeDiedError, StopRequest
from programs.launch.modes import RESTARTED, Launch
from programs.launch.node_process import Node


def acting_environment(threads: int = 1) -> dict[str, str]:
  """Returns environment variables of a process that acts on the CPU.

  What an actor computes is small: handed to another thread it would wait for
  that one to be scheduled.

  Args:
    threads: number of XLA's threads.
  """
  given = os.environ.get("XLA_FLAGS", "")
  return {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "NPROC": str(threads),
    "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",
    "XLA_FLAGS": (
      f"--xla_cpu_enable_concurrency_optimized_scheduler=false {given}".strip()
    ),
  }


def learning_environment() -> dict[str, str]:
  """Returns environment variables of the learner's process.

  An update of a convolutional network on the CPU allocates and frees gigabytes;
  huge pages, where the kernel has them, make it up to a quarter faster.
  """
  tunables = os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
  return {"GLIBC_TUNABLES": tunables}


def run(launch: Launch):
  """Runs every node of this host as a process.

  Raises:
    NodeDiedError: if a node ended before the run was done and was not to be
      restarted, or died too often; the others have been stopped.
    SilentError: if the learner or its host was silent for too long.
    UserError: if this host's run is not that of the learner's host.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  program, counter_handle = graph.make_program(
    launch.experiment, launch.cluster.actors if launch.cluster else None
  )
  nodes = _make_nodes(program, launch)
  running: list[Node] = []
  with StopRequest(at_once=lambda: [node.kill() for node in running]) as stop:
    supervisor = supervision.Supervisor(
      launch.experiment,
      graph.make_status_client(counter_handle),
      launch.progress,
      hosts.make(launch.cluster, launch.experiment, launch.progress),
      stop,
    )
    try:
      if launch.cluster and not launch.cluster.is_learner_host:
        supervisor.wait_for_counter()
      for node in nodes:
        if stop:
          break
        node.start()
        running.append(node)
      supervisor.run(running, RESTARTED[launch.restart])
    finally:
      supervision.stop_nodes(running)
    if stop:
      _check_last_checkpoint(running)
      raise Interrupted(stop.number)


def _make_nodes(program: lp.Program, launch: Launch) -> list[Node]:
  """Returns this host's nodes."""
  experiment, cluster = launch.experiment, launch.cluster

  def environment(group: str) -> dict[str, str]:
    if group == "learner":
      own = {**learning_environment(), **launch.learner_environment}
    else:
      own = acting_environment(launch.threads_per_actor)
    return {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1", **own}

  def address(group: str, number: int) -> str | None:
    return cluster.address(group, number) if cluster else None

  logs = experiment.logs / "nodes"
  logs.mkdir(parents=True, exist_ok=True)
  nodes = []
  for command in launchpad_internals.make_commands(
    program,
    cluster.groups if cluster else program.groups,
    environment,
    experiment.workdir / ".nodes",
    address,
  ):
    group, number = command.group, command.number
    name = group if len(program.groups[group]) == 1 else f"{group}/{number}"
    if group == "actor" and cluster is not None:
      name = f"actor/{cluster.actors[number]}"
    nodes.append(Node(
      name,
      command.arguments,
      command.environment,
      logs / f"{name.replace('/', '_')}.log",
      launch.learner_files if group == "learner" else (),
    ))
  return nodes


def _check_last_checkpoint(nodes: list[Node]):
  """Raises NodeDiedError if the learner did not end well when asked to."""
  for node in nodes:
    if node.group != "learner" or node.process is None:
      continue
    # A learner that was killed by SIGTERM had not begun yet.
    if node.process.returncode not in (0, -signal.SIGTERM):
      raise NodeDiedError(
        supervision.describe_death(node, " when it was asked to stop")
      )
