"""Checkpoints: arrays in .npz files, written atomically.

Nothing is pickled, so that reading a file never runs code. Every file has a
format version and a checksum.
"""

import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_METADATA = "metadata"
_NAME = re.compile(r"checkpoint_([0-9]+)\.npz")
# Increased when names or meanings of the arrays change.
FORMAT = 1


class CheckpointError(ValueError):
  """Reports a checkpoint that cannot be read or has other arrays."""


def save(
  directory: str | os.PathLike,
  step: int,
  state: Any,
  metadata: Mapping[str, Any],
  *,
  keep: int = 3,
  keep_one_in: int | None = None,
) -> pathlib.Path:
  """Writes a checkpoint and removes all but the newest ones.

  Args:
    directory: directory of the checkpoints; made if missing.
    step: learner step, which names the file.
    state: nest of arrays.
    metadata: any JSON object.
    keep: number of checkpoints to keep.
    keep_one_in: checkpoints whose `metadata["number"]` is a multiple of it are
      also kept for ever, in the subdirectory `kept`.

  Returns:
    The file's path.

  Raises:
    OSError: if it cannot be written; older checkpoints remain then.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / f"checkpoint_{step:09d}.npz"
  for left_over in directory.glob(".checkpoint_*"):
    left_over.unlink(missing_ok=True)
  write(path, named_arrays(state), metadata)
  # Checkpoints of later steps are damaged, or the run would have resumed from
  # one: they do not count as the newest.
  older = [old for old in list_checkpoints(directory) if step_of(old) <= step]
  for old in older[:-keep]:
    old.unlink(missing_ok=True)
  if keep_one_in is not None and metadata["number"] % keep_one_in == 0:
    _keep_for_ever(path)
  return path


def named_arrays(state: Any) -> dict[str, np.ndarray]:
  """Returns the arrays of a nest by name, as `write` takes them."""
  return {name: np.asarray(x) for name, x in _named_leaves(state).items()}


def write(
  path: pathlib.Path,
  arrays: Mapping[str, np.ndarray],
  metadata: Mapping[str, Any],
):
  """Writes a file of named arrays atomically.

  Raises:
    OSError: if it cannot be written.
  """
  temporary = path.with_name(f".{path.name}.{os.getpid()}")
  described = {**metadata, "format": FORMAT}
  described["checksum"] = _checksum(arrays, described)
  try:
    with open(temporary, "wb") as file:
      np.savez(file, **arrays, **{_METADATA: np.array(json.dumps(described))})
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(path.parent)
  finally:
    temporary.unlink(missing_ok=True)


def step_of(path: pathlib.Path) -> int:
  """Returns the learner step that a checkpoint's name states."""
  return int(path.stem.partition("_")[2])


def _sync(directory: pathlib.Path):
  """Flushes a directory's entries to the disk."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _keep_for_ever(path: pathlib.Path):
  kept = path.parent / "kept"
  kept.mkdir(exist_ok=True)
  (kept / path.name).unlink(missing_ok=True)
  try:
    os.link(path, kept / path.name)
  except OSError:  # A file system without links.
    copy = kept / f".{path.name}"
    shutil.copyfile(path, copy)
    os.replace(copy, kept / path.name)


def _checksum(
  arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> str:
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
    digest.update(array.data)
  # JSON turns tuples into lists.
  plain = json.loads(json.dumps(metadata))
  digest.update(json.dumps(plain, sort_keys=True).encode())
  return digest.hexdigest()


def list_checkpoints(directory: str | os.PathLike) -> list[pathlib.Path]:
  """Returns the checkpoints of a directory, oldest first."""
  directory = pathlib.Path(directory)
  if not directory.is_dir():
    return []
  found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
  return sorted(found, key=lambda path: (step_of(path), path.name))


def load(
  directory: str | os.PathLike, template: Any
) -> tuple[Any, dict[str, Any]] | None:
  """Reads the newest intact checkpoint.

  Logs an error for each newer one that is damaged or has another format.

  Args:
    directory: directory of the checkpoints.
    template: nest of arrays or `jax.ShapeDtypeStruct`s with the structure,
      shapes and dtypes of the state.

  Returns:
    (state of NumPy arrays, metadata), or None if there is no checkpoint.

  Raises:
    CheckpointError: if no checkpoint can be read, or its arrays differ from
      `template`; the message lists the differences.
  """
  newest = read_newest(directory)
  if newest is None:
    return None
  path, arrays, metadata = newest
  return fit(path, arrays, template), metadata


def read_newest(
  directory: str | os.PathLike,
) -> tuple[pathlib.Path, dict[str, np.ndarray], dict[str, Any]] | None:
  """Reads the newest intact checkpoint, whatever its arrays are.

  Returns:
    (path, arrays by name, metadata), or None if there is no checkpoint.

  Raises:
    CheckpointError: if no checkpoint can be read.
  """
  paths = list_checkpoints(directory)
  if not paths:
    return None
  problems = []
  for path in reversed(paths):
    try:
      return path, *read(path)
    except CheckpointError as error:
      problems.append(str(error))
      logging.error("%s", error)
  raise CheckpointError(
    "No checkpoint can be read:\n  " + "\n  ".join(problems)
  )


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Returns the arrays by name, and the metadata, of one file.

  Raises:
    CheckpointError: if it is damaged, or `write` did not write it.
  """
  if path.exists() and not path.is_file():
    # A named pipe would be waited for without end.
    raise CheckpointError(f"{path} is not a regular file.")
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    metadata = json.loads(str(arrays.pop(_METADATA)))
    version = metadata["format"]
    checksum = metadata.pop("checksum")
    intact = checksum == _checksum(arrays, metadata)
    del metadata["format"]
  except Exception as error:  # A torn file may raise any error; chained.
    raise CheckpointError(
      f"{path} is damaged, or not a checkpoint of this program:"
      f" {type(error).__name__}: {error}"
    ) from error
  if version != FORMAT:
    raise CheckpointError(
      f"{path} has format {version!r}, but this version of acme_stac reads"
      f" {FORMAT}. Use the version that wrote it."
    )
  if not intact:
    raise CheckpointError(f"{path} is damaged: its checksum is wrong.")
  return arrays, metadata


def fit(path: pathlib.Path, arrays: Mapping[str, Any], template: Any) -> Any:
  """Returns arrays by name in the structure of `template`.

  Raises:
    CheckpointError: if their names, shapes or dtypes differ from it.
  """
  wanted = _named_leaves(template)
  differences = []
  for name in sorted(wanted.keys() | arrays.keys()):
    have = _kind(arrays[name]) if name in arrays else "absent"
    want = _kind(wanted[name]) if name in wanted else "absent"
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


def _kind(array: Any) -> str:
  """Describes an array by its shape, and its dtype unless float32."""
  dtype = np.dtype(array.dtype)
  return f"{tuple(array.shape)}" + (
    "" if dtype == np.float32 else f" {dtype}"
  )


def _named_leaves(state: Any) -> dict[str, Any]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(state)
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
