"""Runs a program on this machine: in a thread, in threads, in processes.

Launchpad's own launchers do not notice the death of a node in every case, do
not say which one it was, and end themselves by a signal; so processes that it
describes are started and watched here.
"""

import ctypes
import dataclasses
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import launchpad as lp
from launchpad.nodes.python.local_multi_processing import PythonProcess

from programs import nodes, program
from programs.experiment import Experiment
from programs.progress import Progress

# Seconds that nodes have to end by themselves after SIGTERM: an update and a
# checkpoint must fit.
_STOP_SECONDS = 30
# Seconds that the evaluator has for its last evaluation.
_LAST_EVALUATION_SECONDS = 300
_POLL_SECONDS = 0.2
_TAIL_LINES = 15
# In a node's environment, so that tools can tell the processes apart.
NODE_NAME = "ACME_STAC_NODE"


class NodeDiedError(Exception):
  """A node ended the run; the text names it and shows its last lines."""


class Interrupted(Exception):  # noqa: N818  No error.
  """The run was asked to stop by a signal, and has stopped."""


class _StopRequest:
  """Remembers SIGINT and SIGTERM while it is entered."""

  def __init__(self):
    self._event = threading.Event()
    self._old: dict[int, Any] = {}

  def __enter__(self) -> "_StopRequest":
    for number in (signal.SIGINT, signal.SIGTERM):
      self._old[number] = signal.signal(number, lambda *_: self._event.set())
    return self

  def __exit__(self, *unused_args):
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def __bool__(self) -> bool:
    return self._event.is_set()


def run_serial(experiment: Experiment, initial_step: int, progress: Progress):
  """Runs builder, learner and actors in this thread: slow, but repeatable.

  Raises:
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  import reverb

  with _StopRequest() as stop:
    server = reverb.Server(nodes.make_tables(experiment))
    replay = server.localhost_client()
    counter = nodes.make_counter(experiment, initial_step)
    variables = nodes.VariableServer()
    learner = nodes.Learner(
      experiment, replay, counter, variables.put, lambda: bool(stop)
    )
    learner.publish()
    actors = [
      nodes.Actor(
        experiment,
        index,
        initial_step,
        replay,
        variables,
        counter,
        lambda: bool(stop),
      )
      for index in range(experiment.num_actors)
    ]
    evaluator = nodes.Evaluator(
      experiment, initial_step, variables, counter, lambda: bool(stop)
    )
    try:
      _alternate(experiment, learner, actors, evaluator, counter, progress)
    finally:
      learner.save()
      server.stop()
    if stop:
      raise Interrupted
    counter.finish()
    progress.show(counter.status())


def _alternate(experiment, learner, actors, evaluator, counter, progress):
  """Makes what an update needs, learns, and again until the budget is done."""
  config = experiment.config
  items_per_batch = config.batch_size // experiment.environments_per_actor
  batches = config.batches_per_update + config.batches_ahead
  every = experiment.evaluation_every_steps
  turn = 0
  due = None
  while not learner.done:
    steps = counter.status()["steps"]
    if due is None or steps >= due:
      due = (steps // every + 1) * every
      if experiment.evaluation_episodes:
        evaluator.evaluate()
    for _ in range(batches * items_per_batch):
      if not actors[turn % len(actors)].run_item(wait_for_variables=True):
        return
      turn += 1
    batches = config.batches_per_update
    if not learner.step():
      return
    progress.show(counter.status())
  if experiment.evaluation_episodes:
    evaluator.evaluate()


def run_threads(experiment: Experiment, initial_step: int, progress: Progress):
  """Runs every node as a thread of this process.

  Raises:
    NodeDiedError: if a node raised an error.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  graph, counter_handle = program.make_program(experiment, initial_step)
  manager = lp.launch(graph, lp.LaunchType.LOCAL_MULTI_THREADING)
  counter = program.make_status_client(counter_handle)
  with _StopRequest() as stop:
    error: BaseException | None = None
    while not stop and not _finished(counter, progress):
      try:
        manager.check_for_thread_worker_exception()
      except BaseException as raised:
        error = raised
        break
      time.sleep(_POLL_SECONDS)
    if error is None and not stop:
      _wait(
        lambda: not _alive("evaluator") or bool(stop), _LAST_EVALUATION_SECONDS
      )
    manager.stop_event().set()
    ended = _wait(lambda: not _alive(*graph.groups), _STOP_SECONDS)
    # Launchpad would wait for its threads at exit, and kill this process.
    manager._disable_signals()
    if error is not None:
      raise NodeDiedError(f"A node died: {error!r}") from error
    if not ended:
      raise NodeDiedError("Some nodes did not stop when asked to.")
    if stop:
      raise Interrupted


def split_devices(devices: list[Any], batch_size: int) -> tuple[list, list]:
  """Returns the devices to learn on, and those that are set aside for acting.

  As many as can share a batch evenly learn, but one at least is left to act. A
  single device does both.
  """
  if len(devices) == 1:
    return devices, devices
  learners = max(n for n in range(1, len(devices)) if batch_size % n == 0)
  return devices[:learners], devices[learners:]


def run_colocated(
  experiment: Experiment, initial_step: int, progress: Progress
):
  """Runs learner and actors as threads on one host's devices.

  This is section 8 of the papers: some devices are set aside for inference, the
  others learn, parameters go from device to device, and trajectories through a
  queue in memory.

  Raises:
    NodeDiedError: if one of them raised an error.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  import jax

  learner_devices, inference_devices = split_devices(
    jax.local_devices(), experiment.config.batch_size
  )
  print(f"Learner on {learner_devices}, inference on {inference_devices}")
  ended = threading.Event()
  with _StopRequest() as stop:

    def should_stop() -> bool:
      return bool(stop) or ended.is_set()

    replay = nodes.make_builder(experiment, should_stop).make_local_queue()
    counter = nodes.make_counter(experiment, initial_step)
    learner = nodes.Learner(
      experiment, replay, counter, None, should_stop, learner_devices
    )
    arguments = (initial_step, replay, learner, counter, should_stop)
    workers: dict[str, Any] = {"learner": learner}
    for index in range(experiment.num_actors):
      workers[f"actor/{index}"] = nodes.Actor(
        experiment, index, *arguments,
        inference_devices[index % len(inference_devices)],
      )
    if experiment.evaluation_episodes:
      workers["evaluator"] = nodes.Evaluator(
        experiment, initial_step, learner, counter, should_stop,
        inference_devices[-1],
      )
    with futures.ThreadPoolExecutor(len(workers)) as pool:
      running = {
        pool.submit(worker.run): name for name, worker in workers.items()
      }
      try:
        _watch_threads(running, counter, progress)
      finally:
        ended.set()
    if stop:
      raise Interrupted


def _watch_threads(
  running: dict[futures.Future, str], counter: Any, progress: Progress
):
  """Returns when all have ended; raises NodeDiedError if one raised."""
  pending = set(running)
  finished: float | None = None
  while pending:
    done, pending = futures.wait(pending, _POLL_SECONDS)
    status = counter.status()
    progress.show(status)
    for future in done:
      if (error := future.exception()) is not None:
        tail = _tail("".join(traceback.format_exception(error)))
        raise NodeDiedError(
          f"{running[future]} died, so the run was stopped:\n{tail}"
        ) from error
    if status["finished"]:
      finished = finished or time.monotonic()
      if time.monotonic() - finished > _LAST_EVALUATION_SECONDS:
        print("\nThe last evaluation took too long; left out.", file=sys.stderr)
        return


def _alive(*labels: str) -> bool:
  """Returns whether threads of these groups of nodes are running."""
  return any(thread.name in labels for thread in threading.enumerate())


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
  """Waits until a condition holds; returns whether it does."""
  deadline = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > deadline:
      return False
    time.sleep(_POLL_SECONDS)
  return True


def _finished(counter: Any, progress: Progress) -> bool:
  """Shows the progress; returns whether the learner has finished."""
  try:
    status = counter.status()
  except Exception:  # Not there yet, or no longer: the caller watches that.
    return False
  progress.show(status)
  return status["finished"]


@dataclasses.dataclass
class _Node:
  name: str
  process: subprocess.Popen
  log: pathlib.Path


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


def run_processes(
  experiment: Experiment,
  initial_step: int,
  progress: Progress,
  learner_environment: dict[str, str],
  threads_per_actor: int,
  terminal: str | None = None,
):
  """Runs every node as a process of its own.

  Args:
    experiment: the run.
    initial_step: learner steps of the checkpoint that is resumed, or 0.
    progress: where the state of the run is shown.
    learner_environment: environment variables of the learner alone; the others
      see no accelerator.
    threads_per_actor: threads that XLA has in each of the others.
    terminal: a terminal of Launchpad's that shows every node, for example
      "tmux_session". Launchpad then runs the program as it is used to, without
      what this function does besides.

  Raises:
    NodeDiedError: if a node ended before the run was done; the others have been
      stopped.
    Interrupted: after SIGINT or SIGTERM, with the checkpoint written.
  """
  graph, counter_handle = program.make_program(experiment, initial_step)
  hidden = acting_environment(threads_per_actor)
  learner_environment = {**learning_environment(), **learner_environment}
  common = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONUNBUFFERED": "1"}
  resources = {
    label: PythonProcess(
      env={**common, **(learner_environment if label == "learner" else hidden)}
    )
    for label in graph.groups
  }
  if terminal is not None:
    lp.launch(
      graph,
      lp.LaunchType.LOCAL_MULTI_PROCESSING,
      local_resources=resources,
      terminal=terminal,
    ).wait()
    return

  with _StopRequest() as stop:
    running: list[_Node] = []
    try:
      running += _start(graph, resources, experiment.logs / "nodes")
      counter = program.make_status_client(counter_handle)
      _watch(running, counter, progress, stop)
    finally:
      stopped = _stop(running)
    if stop:
      if not stopped:
        raise NodeDiedError("Some nodes did not stop when asked to; killed.")
      raise Interrupted


def _start(
  graph: lp.Program, resources: dict[str, Any], logs: pathlib.Path
) -> Iterator[_Node]:
  """Starts the nodes as Launchpad's local launcher would."""
  # These are the steps that every launcher of Launchpad takes.
  for label, group in graph.groups.items():
    for node in group:
      node._initialize_context(
        lp.LaunchType.LOCAL_MULTI_PROCESSING, launch_config=resources[label]
      )
  for label, group in graph.groups.items():
    for node in group:
      for handle in node.input_handles:
        handle.connect(node, label)
  for node in graph.get_all_nodes():
    node.bind_addresses()

  logs.mkdir(parents=True, exist_ok=True)
  for label, group in graph.groups.items():
    commands = group[0].to_executables(group, label, group[0].launch_context)
    for command in commands:
      name = command.title if len(group) > 1 else label
      path = logs / f"{name.replace('/', '_')}.log"
      arguments = [
        argument
        for argument in command.command_as_list
        if argument != "--pdb_post_mortem"
      ]
      arguments.append(f"--lp_termination_notice_secs={_STOP_SECONDS}")
      with open(path, "a") as log:
        log.write(f"--- {name}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        log.flush()
        process = subprocess.Popen(
          arguments,
          env={**os.environ, **command.env_overrides, NODE_NAME: name},
          stdin=subprocess.DEVNULL,
          stdout=log,
          stderr=log,
          # Ctrl-C reaches the launcher alone, which then stops the nodes.
          start_new_session=True,
          preexec_fn=_die_with_parent,
        )
      yield _Node(name, process, path)


def _die_with_parent():
  """Has the kernel send SIGTERM to this process when its parent dies."""
  set_parent_death_signal = 1
  ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _watch(
  running: list[_Node], counter: Any, progress: Progress, stop: _StopRequest
):
  """Returns when the run is done or is to stop; raises NodeDiedError."""
  learner_done: float | None = None
  last_status = 0.0
  while not stop:
    now = time.monotonic()
    if now - last_status > 1.0:
      _finished(counter, progress)
      last_status = now
    waiting_for = set()
    for node in running:
      code = node.process.poll()
      group = node.name.split("/")[0]
      if code is None:
        waiting_for.add(group)
      elif code == 0 and group == "learner":
        learner_done = learner_done or now
      elif not (code == 0 and learner_done):
        # An actor may notice the end long before the learner's process is
        # gone on a busy machine. Everything is saved when the end is announced.
        if code == 0 and _finished(counter, progress):
          learner_done = learner_done or now
          continue
        raise NodeDiedError(_describe_death(node, code))
    if learner_done is not None:
      if "evaluator" not in waiting_for:
        _finished(counter, progress)
        return
      if now - learner_done > _LAST_EVALUATION_SECONDS:
        print("\nThe last evaluation took too long; left out.", file=sys.stderr)
        return
    time.sleep(_POLL_SECONDS)


def _describe_death(node: _Node, code: int) -> str:
  if code < 0:
    try:
      cause = f"was killed by {signal.Signals(-code).name}"
    except ValueError:
      cause = f"was killed by signal {-code}"
    if code == -signal.SIGKILL:
      cause += " (by hand, or because memory ran out)"
  else:
    cause = f"ended with exit code {code}"
  tail = _tail(node.log.read_text(errors="replace"))
  return (
    f"Node {node.name} {cause}, so the run was stopped. Its last lines"
    f" ({node.log}):\n{tail}"
  )


def _tail(text: str) -> str:
  """Returns the last lines of what a node said, set off."""
  return "\n".join(
    f"  | {line}" for line in text.splitlines()[-_TAIL_LINES:]
  )


def _all_ended(group: list[_Node]) -> bool:
  return all(node.process.poll() is not None for node in group)


def _stop(running: list[_Node]) -> bool:
  """Ends all nodes; returns whether they did so by themselves."""
  # Those that call others first, so that no call waits for a node that is gone.
  servers = ("replay", "counter", "variables")
  for group in (
    [node for node in running if node.name not in servers],
    [node for node in running if node.name in servers],
  ):
    for node in group:
      if node.process.poll() is None:
        node.process.terminate()
    _wait(functools.partial(_all_ended, group), _STOP_SECONDS)
  ended = _all_ended(running)
  for node in running:
    if node.process.poll() is None:
      print(f"\nNode {node.name} did not stop; killed.", file=sys.stderr)
      # Each node leads a session of its own: whatever it started goes too.
      os.killpg(node.process.pid, signal.SIGKILL)
      node.process.wait()
  return ended
