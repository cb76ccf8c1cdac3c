"""Runs the nodes of this host as processes of their own."""

import os
import signal

import launchpad as lp

from programs.launch import graph, hosts, launchpad_internals, supervision
from programs.launch.ending import Interrupted, NodeDiedError, StopRequest
from programs.launch.modes import Launch
from programs.launch.node import Node


def acting_environment(threads: int = 1) -> dict[str, str]:
  """Returns environment variables of a process that acts on the CPU.

  What an actor computes is small: handed to another thread it would wait for
  that one to be scheduled.

  Args:
    threads: how many XLA has.
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

  An update of a convolutional network on the CPU takes gigabytes that are given
  back and faulted in again every time: 500 pages to a fault, where the kernel
  offers that, make it up to a quarter faster.
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
  cluster = launch.cluster
  program, counter_handle = graph.make_program(
    launch.experiment, cluster.actors if cluster else None
  )
  common = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
  acting = {**common, **acting_environment(launch.threads_per_actor)}
  learning = {
    **common, **learning_environment(), **launch.learner_environment
  }
  resources = launchpad_internals.make_resources({
    group: learning if group == "learner" else acting
    for group in program.groups
  })
  if launch.terminal is not None:
    # Launchpad then runs the program in its own way, without restarts.
    lp.launch(
      program,
      lp.LaunchType.LOCAL_MULTI_PROCESSING,
      local_resources=resources,
      terminal=launch.terminal,
    ).wait()
    return
  nodes = _make_nodes(program, resources, launch)
  running: list[Node] = []
  with StopRequest(at_once=lambda: [node.kill() for node in running]) as stop:
    host = hosts.make(cluster, launch.experiment, launch.progress)
    supervisor = supervision.Supervisor(
      launch.experiment,
      graph.make_status_client(counter_handle),
      launch.progress,
      host,
      stop,
    )
    try:
      if host.learner_address is not None:
        supervisor.wait_for_learner_host()
      for node in nodes:
        if stop:
          break
        node.start()
        running.append(node)
      supervisor.run(running, supervision.RESTARTED[launch.restart])
    finally:
      supervision.stop_nodes(running)
    if stop:
      _check_last_checkpoint(running)
      raise Interrupted(stop.number)


def _make_nodes(
  program: lp.Program, resources: dict, launch: Launch
) -> list[Node]:
  """Returns this host's nodes."""
  experiment, cluster = launch.experiment, launch.cluster

  def address(group: str, number: int) -> str | None:
    return cluster.address(group, number) if cluster else None

  logs = experiment.logs / "nodes"
  logs.mkdir(parents=True, exist_ok=True)
  nodes = []
  for command in launchpad_internals.make_commands(
    program,
    resources,
    cluster.groups if cluster else program.groups,
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
