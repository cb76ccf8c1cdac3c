import json
import pathlib

import jax
import numpy as np
import pytest

from acme_stac import core
from acme_stac.agent import checkpointing
from tests import helpers


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


def test_keeps_the_newest_and_nothing_half_written(tmp_path):
  for step in (1, 2, 10):
    checkpointing.save(tmp_path, step, state(), {})
  names = [path.name for path in checkpointing.list_checkpoints(tmp_path)]
  assert names == ["checkpoint_000000002.npz", "checkpoint_000000010.npz"]
  assert len(list(tmp_path.iterdir())) == 2


def test_torn_file_falls_back_to_the_one_before(tmp_path):
  checkpointing.save(tmp_path, 1, state(), {"step": 1})
  newest = checkpointing.save(tmp_path, 2, state(), {"step": 2})
  newest.write_bytes(newest.read_bytes()[:500])
  _, metadata = checkpointing.load(tmp_path, state())
  assert metadata == {"step": 1}
  checkpointing.list_checkpoints(tmp_path)[0].write_bytes(b"")
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
