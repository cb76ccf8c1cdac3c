"""Hosts that are network namespaces of this machine, joined by a switch.

No privileges are needed where the kernel gives them away inside a user
namespace. Nothing in here leads to a network outside: the switch has no way to
one.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

import psutil

from programs.launch import child

_TOOLS = ("unshare", "nsenter", "ip")
# Longer than any test; a holder that is left over ends by itself.
_HOLD_SECONDS = "1200"
# Names a user namespace for nsenter, and the caller's user in it.
_USER = ("--user", "--preserve-credentials")
_SWITCH = "switch"


class UnavailableError(Exception):
  """The kernel or the tools here do not allow such a network."""


class CommandError(Exception):
  """A command failed; the text has what it said."""


class Network:
  """Network namespaces: a switch, which is a bridge, and hosts on it."""

  def __init__(self):
    """Makes the switch.

    Raises:
      UnavailableError: if that is not possible here.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
      raise UnavailableError(f"there is no {', '.join(missing)} here")
    self._holders: dict[str, subprocess.Popen] = {}
    self._user: tuple[str, ...] = _USER
    try:
      try:
        self._hold(
          _SWITCH, ["unshare", "--user", "--map-root-user", "--net"]
        )
      except UnavailableError:
        if os.getuid():
          raise
        # Root may have them without a user namespace.
        self._user = ()
        self._hold(_SWITCH, ["unshare", "--net"])
      try:
        self.run(_SWITCH, "ip", "link", "add", "bridge", "type", "bridge")
        self.run(_SWITCH, "ip", "link", "set", "dev", "bridge", "up")
        self.add_host("probe", "10.99.0.1/24")
      except CommandError as error:
        raise UnavailableError(str(error)) from error
      self._release("probe")
    except BaseException:
      self.close()
      raise

  def _hold(self, name: str, command: list[str]):
    """Starts a process in new namespaces, which are there while it is."""
    process = subprocess.Popen(
      child.command([*command, "sleep", _HOLD_SECONDS]),
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    self._holders[name] = process
    comm = pathlib.Path(f"/proc/{process.pid}/comm")
    deadline = time.monotonic() + 10
    while comm.read_text().strip() != "sleep":
      if process.poll() is not None:
        del self._holders[name]
        message = process.communicate()[1].strip()
        raise UnavailableError(f"{' '.join(command)}: {message}")
      assert time.monotonic() < deadline, f"{command} does nothing"
      time.sleep(0.01)

  def add_host(self, name: str, address: str, on_switch: str | None = None):
    """Makes a host and links it to the switch.

    Args:
      name: of the host, and of the switch's end of the link.
      address: of the host, with the length of its prefix.
      on_switch: address of the switch's end, which then is not on the bridge:
        the host reaches nothing but the switch itself.
    """
    self._hold(name, self.command(_SWITCH, "unshare", "--net", net=False))
    pid = str(self._holders[name].pid)
    self.run(
      _SWITCH, "ip", "link", "add", "name", name, "type", "veth",
      "peer", "name", "eth0", "netns", pid,
    )
    if on_switch is None:
      self.run(
        _SWITCH, "ip", "link", "set", "dev", name, "master", "bridge", "up"
      )
    else:
      self.run(_SWITCH, "ip", "address", "add", on_switch, "dev", name)
      self.run(_SWITCH, "ip", "link", "set", "dev", name, "up")
    self.run(name, "ip", "link", "set", "dev", "lo", "up")
    self.run(name, "ip", "address", "add", address, "dev", "eth0")
    self.run(name, "ip", "link", "set", "dev", "eth0", "up")

  def add_switch_address(self, address: str):
    """Gives the switch itself an address on the bridge."""
    self.run(_SWITCH, "ip", "address", "add", address, "dev", "bridge")

  def set_link(self, name: str, state: str):
    """Sets the link of a host "up" or "down", at the switch."""
    self.run(_SWITCH, "ip", "link", "set", "dev", name, state)

  @property
  def can_delay(self) -> bool:
    """Whether the kernel and the tools can delay a link."""
    try:
      self._add_delay(_SWITCH, "bridge", 1)
    except CommandError:
      return False
    self.run(_SWITCH, "tc", "qdisc", "del", "dev", "bridge", "root")
    return True

  def delay(self, name: str, milliseconds: int):
    """Delays a host's link by so much, each way."""
    self._add_delay(_SWITCH, name, milliseconds)
    self._add_delay(name, "eth0", milliseconds)

  def _add_delay(self, name: str, device: str, milliseconds: int):
    self.run(
      name, "tc", "qdisc", "add", "dev", device, "root", "netem", "delay",
      f"{milliseconds}ms",
    )

  def command(self, name: str, *command: str, net: bool = True) -> list[str]:
    """Returns a command as one that runs on a host."""
    return [
      "nsenter", "--target", str(self._holders[name].pid), *self._user,
      *(["--net"] if net else []), "--", *command,
    ]

  def run(self, name: str, *command: str) -> str:
    """Runs a short command on a host; returns its output."""
    result = subprocess.run(
      self.command(name, *command), capture_output=True, text=True, timeout=60
    )
    if result.returncode:
      raise CommandError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout

  def start(self, name: str, *command: str, **kwargs) -> subprocess.Popen:
    """Starts a command on a host; it ends when this process does."""
    return subprocess.Popen(
      child.command(self.command(name, *command)),
      stdin=subprocess.DEVNULL,
      **kwargs,
    )

  def start_on_switch(self, *command: str, **kwargs) -> subprocess.Popen:
    """Starts a command on the switch."""
    return self.start(_SWITCH, *command, **kwargs)

  def processes(self, name: str) -> list[psutil.Process]:
    """Returns what runs on a host."""
    holder = self._holders[name].pid
    own = os.readlink(f"/proc/{holder}/ns/net")
    # They may be killed.
    assert own != os.readlink("/proc/self/ns/net")
    found = []
    for process in psutil.process_iter():
      # One that ended meanwhile, or that is another user's.
      with contextlib.suppress(OSError, psutil.NoSuchProcess):
        if (
          process.pid != holder
          and os.readlink(f"/proc/{process.pid}/ns/net") == own
          and process.status() != psutil.STATUS_ZOMBIE
        ):
          found.append(process)
    return found

  def listening(self, name: str) -> set[int]:
    """Returns the TCP ports on which a host listens."""
    listening = "0A"
    ports = set()
    text = self.run(name, "cat", "/proc/net/tcp", "/proc/net/tcp6")
    for line in text.splitlines():
      fields = line.split()
      if fields[3] == listening:
        ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports

  def kill(self, name: str):
    """Kills all that runs on a host at once."""
    victims = self.processes(name)
    for number in (signal.SIGSTOP, signal.SIGKILL):
      for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
          process.send_signal(number)
    psutil.wait_procs(victims, timeout=30)

  def cut_power(self, name: str):
    """Removes a host with all that runs on it; nobody hears of it.

    Connections are not closed as those of a process that is killed would be.
    """
    self.set_link(name, "down")
    self.kill(name)
    # Should something hold the namespace still, its link is gone anyway.
    self.run(_SWITCH, "ip", "link", "delete", "dev", name)
    self._release(name)

  def _release(self, name: str):
    holder = self._holders.pop(name)
    holder.kill()
    holder.communicate()

  def close(self):
    """Ends all that runs in the network, and the network."""
    for name in list(self._holders):
      self.kill(name)
    for name in list(self._holders):
      self._release(name)
