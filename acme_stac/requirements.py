"""Requirements of installed packages, and those that are not met."""

import importlib.metadata
from typing import NamedTuple

from packaging.requirements import Requirement


class Unmet(NamedTuple):
  """A requirement that is not met.

  Attributes:
    name: of the package.
    version: the installed one; None if the package is missing.
    wanted: the versions that fit.
  """

  name: str
  version: str | None
  wanted: str

  def __str__(self) -> str:
    if self.version is None:
      return f"{self.name} is missing"
    return f"{self.name} {self.version}, not {self.wanted}"


def version_of(name: str) -> str | None:
  """Returns the version of a package; None if it is not installed."""
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def requirements_of(package: str, extra: str = "") -> list[Requirement]:
  """Returns the requirements of an installed package that apply here.

  Args:
    package: name of the package.
    extra: return the requirements of this extra; by default, those that belong
      to no extra.
  """
  found = []
  for line in importlib.metadata.requires(package) or ():
    requirement = Requirement(line)
    marker = requirement.marker
    if bool(extra) == ("extra ==" in line) and (
      marker is None or marker.evaluate({"extra": extra})
    ):
      found.append(requirement)
  return found


def unmet(package: str, extra: str = "") -> list[Unmet]:
  """Returns the requirements of an installed package that are not met.

  Args:
    package: as for `requirements_of`.
    extra: as for `requirements_of`.
  """
  return [
    Unmet(requirement.name, version, str(requirement.specifier))
    for requirement in requirements_of(package, extra)
    if (version := version_of(requirement.name)) is None
    or not requirement.specifier.contains(version, prereleases=True)
  ]
