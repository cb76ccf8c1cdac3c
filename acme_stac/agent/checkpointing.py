"""Checkpoints: plain arrays in .npz files, written whole or not at all.

Nothing is pickled, so that a file from elsewhere can do no harm.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_METADATA = "metadata"
_NAME = re.compile(r"checkpoint_(\d+)\.npz")
_KEEP = 2


class CheckpointError(ValueError):
  """A checkpoint that cannot be read, or does not fit."""


def save(
  directory: str | os.PathLike,
  step: int,
  state: Any,
  metadata: Mapping[str, Any],
) -> pathlib.Path:
  """Writes a checkpoint and removes all but the newest ones.

  Args:
    directory: where checkpoints are; made if need be.
    step: learner step, which names the file.
    state: nest of arrays.
    metadata: anything that JSON can hold.

  Returns:
    The file's path.

  Raises:
    OSError: if it cannot be written; older checkpoints are untouched then.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / f"checkpoint_{step:09d}.npz"
  temporary = directory / f".{path.name}.{os.getpid()}"
  arrays = {name: np.asarray(x) for name, x in _named_leaves(state).items()}
  try:
    with open(temporary, "wb") as file:
      np.savez(file, **arrays, **{_METADATA: np.array(json.dumps(metadata))})
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
  for old in list_checkpoints(directory)[:-_KEEP]:
    old.unlink(missing_ok=True)
  return path


def list_checkpoints(directory: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the checkpoints of a directory, oldest first."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return []
  found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
  return sorted(found, key=lambda path: path.name)


def load(
  directory: str | os.PathLike, template: Any
) -> tuple[Any, dict[str, Any]] | None:
  """Reads the newest checkpoint that is whole.

  Args:
    directory: where checkpoints are.
    template: nest with the structure, shapes and dtypes of the state, of arrays
      or `jax.ShapeDtypeStruct`s.

  Returns:
    (state of numpy arrays, metadata), or None if there is no checkpoint.

  Raises:
    CheckpointError: if no checkpoint can be read, or its arrays are not those
      of `template`; the message lists the differences.
  """
  paths = list_checkpoints(directory)
  if not paths:
    return None
  problems = []
  for path in reversed(paths):
    try:
      with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
      metadata = json.loads(str(arrays.pop(_METADATA)))
    except Exception as error:  # A torn file raises whatever numpy meets.
      problems.append(f"{path}: {error}")
      continue
    return _fit(path, arrays, template), metadata
  raise CheckpointError(
    "No checkpoint can be read:\n  " + "\n  ".join(problems)
  )


def _fit(path: pathlib.Path, arrays: Mapping[str, Any], template: Any) -> Any:
  wanted = _named_leaves(template)
  differences = []
  for name in sorted(wanted.keys() | arrays.keys()):
    have = arrays[name].shape if name in arrays else "absent"
    want = wanted[name].shape if name in wanted else "absent"
    if have != want:
      differences.append(f"{name}: {have} in the checkpoint, {want} configured")
  if differences:
    more = len(differences) - 5
    raise CheckpointError(
      f"The checkpoint {path} is of another configuration:\n  "
      + "\n  ".join(differences[:5])
      + (f"\n  and {more} more" if more > 0 else "")
    )
  leaves = [
    np.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()
  ]
  return jax.tree_util.tree_unflatten(
    jax.tree_util.tree_structure(template), leaves
  )


def _named_leaves(state: Any) -> dict[str, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
