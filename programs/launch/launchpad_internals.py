"""All uses of Launchpad's private API.

Launchpad's own launchers miss some deaths of nodes, do not say which node died,
kill themselves by a signal, and restart nothing. Launchpad has no public way to
get a program's commands without starting them, so this module repeats the steps
that all its launchers take. The lock pins the version.
"""

import pathlib
import shutil
import tempfile
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import launchpad as lp
from launchpad import address as lp_address

# No public module of the wheel exports it.
from launchpad.nodes.python.local_multi_processing import PythonProcess

from programs.launch.ending import STOP_SECONDS


class NodeCommand(NamedTuple):
  """The command that starts a node's process.

  Attributes:
    group: the node's group in the program.
    number: index of the node in its group.
    arguments: the command line.
    environment: environment variables, in addition to those of this process.
  """

  group: str
  number: int
  arguments: list[str]
  environment: dict[str, str]


class _FixedAddress(lp_address.AbstractAddressBuilder):
  """An address that is known before the program is launched."""

  def __init__(self, address: str):
    self._address = address

  def build(self) -> str:
    """Returns the address."""
    return self._address


def make_commands(
  program: lp.Program,
  groups: Collection[str],
  environment: Callable[[str], dict[str, str]],
  pickles: pathlib.Path,
  address: Callable[[str, int], str | None],
) -> list[NodeCommand]:
  """Returns the commands of the nodes that run on this host.

  Args:
    program: the program.
    groups: groups of nodes on this host.
    environment: returns the environment variables of a group's processes.
    pickles: a directory only for the pickled nodes; emptied first.
    address: returns the address at which the n-th node of a group listens; None
      for any free port of this host.
  """
  for group, nodes in program.groups.items():
    resources = PythonProcess(env=environment(group))
    for node in nodes:
      node._initialize_context(
        lp.LaunchType.LOCAL_MULTI_PROCESSING, launch_config=resources
      )
  for group, nodes in program.groups.items():
    for number, node in enumerate(nodes):
      for handle in node.input_handles:
        handle.connect(node, group)
      node.bind_addresses()
      for node_address in node.addresses:
        place = address(group, number)
        if place is not None:
          node_address.bind(_FixedAddress(place))
  # Launchpad pickles the nodes into temporary directories. These must last as
  # long as a node may be restarted, and only this user may read them.
  shutil.rmtree(pickles, ignore_errors=True)
  pickles.mkdir(mode=0o700)
  tempfile.tempdir = str(pickles)
  try:
    return [
      NodeCommand(
        group,
        number,
        [
          *(a for a in command.command_as_list if a != "--pdb_post_mortem"),
          f"--lp_termination_notice_secs={STOP_SECONDS}",
        ],
        command.env_overrides,
      )
      for group, nodes in program.groups.items()
      if group in groups
      for number, command in enumerate(
        nodes[0].to_executables(nodes, group, nodes[0].launch_context)
      )
    ]
  finally:
    tempfile.tempdir = None


def disarm(manager: Any):
  """Prevents a program of threads from killing this process at exit."""
  manager._disable_signals()
