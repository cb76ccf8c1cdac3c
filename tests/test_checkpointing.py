import json
import os
import pathlib

import jax
import numpy as np
import pytest

from acme_stac import checkpointing, core
from tests.support import helpers


def state(**overrides):
  config = helpers.small_config(**overrides)
  update = core.make_update(helpers.networks(config), config)
  return update.init(jax.random.PRNGKey(0))


def test_round_trip(tmp_path):
  saved = state()
  checkpointing.save(tmp_path, 7, saved, {"seconds": 1.5})
  loaded, metadata = checkpointing.load(tmp_path, jax.eval_shape(lambda: saved))
  assert metadata == {"seconds": 1.5}
  assert isinstance(loaded, core.TrainingState)
  jax.tree_util.tree_map(np.testing.assert_array_equal, loaded, saved)


def test_none_yet(tmp_path):
  assert checkpointing.load(tmp_path / "none", state()) is None


def names(directory):
  return [path.name for path in checkpointing.list_checkpoints(directory)]


def test_keeps_the_newest_and_nothing_half_written(tmp_path):
  left_over = tmp_path / ".checkpoint_000000001.npz.77"
  left_over.write_bytes(b"a process was killed here")
  for step in (1, 2, 10):
    checkpointing.save(tmp_path, step, state(), {}, keep=2)
  assert names(tmp_path) == [
    "checkpoint_000000002.npz", "checkpoint_000000010.npz"
  ]
  assert len(list(tmp_path.iterdir())) == 2


def test_one_in_so_many_is_kept_for_ever(tmp_path):
  for number in range(1, 8):
    checkpointing.save(
      tmp_path, 100 * number, state(), {"number": number},
      keep=2, keep_one_in=3,
    )
  assert names(tmp_path) == [
    "checkpoint_000000600.npz", "checkpoint_000000700.npz"
  ]
  assert names(tmp_path / "kept") == [
    "checkpoint_000000300.npz", "checkpoint_000000600.npz"
  ]
  _, metadata = checkpointing.load(tmp_path / "kept", state())
  assert metadata == {"number": 6}


def truncate(path):
  path.write_bytes(path.read_bytes()[:500])


def change_a_number(path):
  """As a bug would: the file itself is whole."""
  rewrite(path, lambda arrays, metadata: arrays[".step"].__iadd__(1))


def come_from_the_future(path):
  rewrite(path, lambda arrays, metadata: metadata.update(format=999))


def be_foreign(path):
  np.savez(path, weights=np.zeros(3))


def be_a_pipe(path):
  path.unlink()
  os.mkfifo(path)


def rewrite(path, change):
  with np.load(path) as file:
    arrays = {name: np.array(file[name]) for name in file.files}
  metadata = json.loads(str(arrays.pop("metadata")))
  change(arrays, metadata)
  np.savez(path, metadata=np.array(json.dumps(metadata)), **arrays)


@pytest.mark.parametrize("damage,message", [
  (truncate, "damaged, or not a checkpoint"),
  (change_a_number, "checksum is wrong"),
  (come_from_the_future, "has format 999, but this version"),
  (be_foreign, "not a checkpoint of this program"),
  (be_a_pipe, "is not a regular file"),
  (pathlib.Path.unlink, None),
])
def test_what_cannot_be_read_is_said_and_the_one_before_taken(
  tmp_path, damage, message, caplog
):
  checkpointing.save(tmp_path, 1, state(), {"step": 1})
  newest = checkpointing.save(tmp_path, 2, state(), {"step": 2})
  damage(newest)
  _, metadata = checkpointing.load(tmp_path, state())
  assert metadata == {"step": 1}
  if message is None:
    assert not caplog.records
    return
  (record,) = caplog.records
  assert record.levelname == "ERROR"
  assert str(newest) in record.getMessage() and message in record.getMessage()
  damage(checkpointing.list_checkpoints(tmp_path)[0])
  with pytest.raises(checkpointing.CheckpointError, match="can be read"):
    checkpointing.load(tmp_path, state())


def test_other_shapes_are_listed(tmp_path):
  checkpointing.save(tmp_path, 1, state(), {})
  with pytest.raises(checkpointing.CheckpointError) as error:
    checkpointing.load(tmp_path, state(head_sizes=(9,)))
  assert "(8, 8) in the checkpoint, (8, 9) configured" in str(error.value)
  with pytest.raises(checkpointing.CheckpointError, match="and 45 more"):
    checkpointing.load(tmp_path, state(num_heads=1))


def test_full_disk_leaves_the_old_one(tmp_path, monkeypatch):
  checkpointing.save(tmp_path, 1, state(), {"step": 1})

  def full(*unused_args, **unused_kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(OSError, match="No space left"):
    checkpointing.save(tmp_path, 2, state(), {})
  assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_000000001.npz"]


def test_nothing_is_unpickled(tmp_path):
  """A file with a pickle in it is refused, and the pickle does not run."""
  marker = tmp_path / "ran"

  class Attack:
    def __reduce__(self):
      return pathlib.Path.touch, (marker,)

  arrays = {"params": np.array([Attack()], dtype=object)}
  np.savez(
    tmp_path / "checkpoint_000000001.npz",
    metadata=np.array(json.dumps({})),
    **arrays,
  )
  with pytest.raises(checkpointing.CheckpointError):
    checkpointing.load(tmp_path, state())
  assert not marker.exists()
