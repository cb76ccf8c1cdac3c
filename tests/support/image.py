"""Makes the contents of an image without Docker.

Follows the COPY instructions of xm_launch/Dockerfile and the patterns of
.dockerignore, so that tests can look at the result and run the entry point in
it.
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCKERFILE = pathlib.Path("xm_launch", "Dockerfile")


def instructions(text: str) -> list[tuple[str, str]]:
  """Returns the instructions of a Dockerfile with their arguments."""
  lines = [line for line in text.splitlines() if not line.startswith("#")]
  joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
  found = []
  for line in joined.splitlines():
    if line.strip():
      name, _, rest = line.strip().partition(" ")
      found.append((name.upper(), rest.strip()))
  return found


def is_ignored(path: str, patterns: Sequence[str]) -> bool:
  """Returns whether .dockerignore keeps a file out.

  Args:
    path: of a file, relative to the context.
    patterns: lines of .dockerignore. The last one that fits the file, or a
      folder above it, decides.
  """
  parts = path.split("/")
  prefixes = ["/".join(parts[: i + 1]) for i in range(len(parts))]
  ignored = False
  for pattern in patterns:
    expression = _expression(pattern.lstrip("!"))
    if any(expression.fullmatch(prefix) for prefix in prefixes):
      ignored = not pattern.startswith("!")
  return ignored


def _expression(pattern: str) -> re.Pattern:
  """Returns a pattern of .dockerignore as a regular expression."""
  expression = ""
  for token in re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern.strip("/")):
    expression += {
      "**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"
    }.get(token, re.escape(token))
  return re.compile(expression)


def context(root: pathlib.Path) -> list[str]:
  """Returns the files that Docker gets to see, relative to the root."""
  lines = (root / ".dockerignore").read_text().splitlines()
  patterns = [line for line in lines if line and not line.startswith("#")]
  found = []
  for folder, folders, files in os.walk(root):
    where = pathlib.Path(folder).relative_to(root)
    # Not into those of which nothing is let in again, such as .venv.
    folders[:] = [
      name
      for name in folders
      if not is_ignored(path := (where / name).as_posix(), patterns)
      or any(_lets_in(pattern, path) for pattern in patterns)
    ]
    paths = [(where / name).as_posix() for name in files]
    found += [path for path in paths if not is_ignored(path, patterns)]
  return sorted(found)


def _lets_in(pattern: str, folder: str) -> bool:
  """Returns whether a pattern may let in what is in a folder again."""
  fixed = pattern.lstrip("!").partition("*")[0]
  return (
    pattern.startswith("!")
    and "/" in fixed
    and (fixed.startswith(f"{folder}/") or f"{folder}/".startswith(fixed))
  )


def build(
  destination: pathlib.Path, root: pathlib.Path = ROOT
) -> tuple[pathlib.Path, list[str]]:
  """Copies what the Dockerfile copies.

  Args:
    destination: folder that stands for the image's root; made if need be.
    root: the build context.

  Returns:
    The image's working directory, in `destination`, and its entry point.

  Raises:
    FileNotFoundError: if an instruction copies what the context does not have.
  """
  files = context(root)
  workdir = pathlib.PurePosixPath("/")
  entry_point: list[str] = []
  for name, rest in instructions((root / DOCKERFILE).read_text()):
    if name == "WORKDIR":
      workdir /= rest
    elif name == "COPY":
      *sources, target = rest.split()
      for source in sources:
        _copy(source, target, workdir, files, root, destination)
    elif name == "ENTRYPOINT":
      entry_point = json.loads(rest)
  return destination / workdir.relative_to("/"), entry_point


def _copy(
  source: str,
  target: str,
  workdir: pathlib.PurePosixPath,
  files: Sequence[str],
  root: pathlib.Path,
  destination: pathlib.Path,
):
  """Copies a file or folder as COPY does."""
  to = destination / (workdir / target).relative_to("/")
  if source in files:
    names = {source: to / pathlib.Path(source).name if target.endswith("/")
             else to}
  else:
    # Of a folder, what is in it.
    names = {
      name: to / name.removeprefix(f"{source}/")
      for name in files
      if name.startswith(f"{source}/")
    }
  if not names:
    raise FileNotFoundError(
      f"{DOCKERFILE} copies {source}, which is not there or kept out by"
      " .dockerignore."
    )
  for name, path in names.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / name, path)
