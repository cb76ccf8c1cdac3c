"""Files of trained policies: parameters, metaparameters and configuration.

They are written as checkpoints are (`checkpointing`), without the learner's
optimisers. `trained_policy` loads them.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from acme_stac import checkpointing, environments
from acme_stac.config import STACConfig
from acme_stac.core import TrainingState
from acme_stac.networks import STACNetworks, make_networks

NetworkFactory = Callable[[Any, STACConfig], STACNetworks]


class ActingParams(NamedTuple):
  """The part of a `core.TrainingState` that acting needs, with its names."""

  params: Any
  metaparams: Any


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
  """Returns the metadata of a policy's file.

  Args:
    path: what `load_policy` takes.

  Raises:
    CheckpointError: (a ValueError) if there is none, or it is damaged.
  """
  return read(path)[2]


def export_policy(
  path: str | os.PathLike, output: str | os.PathLike
) -> dict[str, Any]:
  """Writes a policy to one .npz file: parameters and configuration.

  Args:
    path: what `load_policy` takes.
    output: the file; its arrays are named as in a checkpoint, and "metadata"
      is JSON.

  Returns:
    The metadata.

  Raises:
    CheckpointError: if there is no policy, or it is damaged.
    OSError: if the file cannot be written.
  """
  _, arrays, metadata = read(path)
  checkpointing.write(pathlib.Path(output), arrays, metadata)
  return metadata


def save_policy(
  output: str | os.PathLike,
  state: TrainingState,
  config: STACConfig,
  environment_spec: Any,
  network_factory: NetworkFactory = make_networks,
  **metadata: Any,
):
  """Writes a learner's policy to a file for `load_policy`.

  Args:
    output: the file.
    state: of `core.Update`, or of a learner's `save`.
    config: the agent's hyperparameters.
    environment_spec: specs of one environment.
    network_factory: made the networks. The file records the name of a factory
      of your own, so that `load_policy` can ask for it.
    **metadata: anything that JSON can hold.

  Raises:
    OSError: if the file cannot be written.
  """
  acting = ActingParams(state.params, state.metaparams)
  if network_factory is not make_networks:
    module, name = network_factory.__module__, network_factory.__qualname__
    metadata.setdefault("networks", f"python:{module}:{name}")
  checkpointing.write(
    pathlib.Path(output),
    checkpointing.named_arrays(acting),
    {
      **metadata,
      "config": dataclasses.asdict(config),
      "environment_spec": environments.spec_to_json(environment_spec),
    },
  )


def read(
  path: str | os.PathLike,
) -> tuple[pathlib.Path, dict[str, np.ndarray], dict[str, Any]]:
  """Returns the file that is read, its arrays for acting, and its metadata.

  Args:
    path: what `load_policy` takes.

  Raises:
    CheckpointError: (a ValueError) if there is no policy, or it is damaged.
  """
  path = pathlib.Path(path).expanduser()
  if not path.exists():
    raise checkpointing.CheckpointError(f"There is no file or folder {path}.")
  if path.is_dir():
    newest = checkpointing.read_newest(path / "checkpoints")
    if newest is None:
      raise checkpointing.CheckpointError(
        f"{path} has no checkpoints of this project: it is no work directory of"
        " programs.train, or its run has not written one yet. To use a"
        " checkpoint of Acme's, write its learner's policy with"
        " acme_stac.save_policy."
      )
    path, arrays, metadata = newest
  else:
    arrays, metadata = checkpointing.read(path)
  of_acting = tuple(f".{name}[" for name in ActingParams._fields)
  return (
    path,
    {name: x for name, x in arrays.items() if name.startswith(of_acting)},
    metadata,
  )
