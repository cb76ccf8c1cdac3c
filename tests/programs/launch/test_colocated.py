import pytest

from programs.launch import colocated


@pytest.mark.parametrize(
  "devices,batch_size,learners",
  [(1, 32, 1), (2, 32, 1), (3, 32, 2), (4, 32, 2), (8, 32, 4), (8, 35, 7),
   (8, 21, 7), (4, 1, 1)],
)
def test_split_of_devices(devices, batch_size, learners):
  learn, act = colocated.split_devices(list(range(devices)), batch_size)
  assert learn == list(range(learners))
  assert act == (list(range(learners, devices)) if devices > 1 else [0])
