import pathlib

import pytest
import yaml

from programs.run.errors import UserError
from xm_launch import reading

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "xm_launch" / "pong.yaml"


def changed(path, value):
  """The example with one value changed, or removed."""
  data = yaml.safe_load(EXAMPLE.read_text())
  node = data
  *parents, last = path.split("/")
  for name in parents:
    node = node[name]
  if value is None:
    del node[last]
  else:
    node[last] = value
  return data


def error_of(tmp_path, text):
  path = tmp_path / "run.yaml"
  path.write_text(text)
  with pytest.raises(UserError) as error:
    reading.load(str(path))
  return str(error.value).removeprefix(f"{path}: ")


def test_example():
  run = reading.load(str(EXAMPLE))
  assert run.num_actors == 64
  assert run.learner.memory_bytes == 30 * 2**30
  assert run.pools == {"workerpool0": "learner", "workerpool1": "actors"}
  assert run.learner.accelerator.kind.gke == "nvidia-l4"
  assert run.vertex.mounted_workdir == "/gcs/my-bucket/runs/pong"


@pytest.mark.parametrize("path, value, message", [
  ("name", "Pong_1", "name must be at most 30 lower-case letters"),
  ("name", 7, "name must be text (put it in quotes), got 7."),
  ("image", None, "image is missing."),
  ("image", "registry:5000/acme_stac", "needs a tag (not latest) or a digest"),
  ("image", "acme_stac:latest", "needs a tag (not latest) or a digest"),
  ("imgae", "x:1", "Unknown field: 'imgae'. Did you mean 'image'"),
  ("train", "--config=x", "train must be a list, got '--config=x'."),
  ("train", [1], "train[0] must be text (put it in quotes), got 1."),
  ("train", ["config=x"], "train: write 'config=x' as --FLAG=VALUE."),
  ("train", ["--workdir=x"], "train: --workdir is set by the launcher."),
  ("train", ["--config.num_queues=2"], "is set by the launcher."),
  ("queues", 0, "queues must be a whole number of at"),
  ("train", ["--launch=serial"], "train: --launch is set by the launcher."),
  ("actors_per_host", 0, "actors_per_host must be a whole number"),
  ("actors_per_host", 1001, "at most 1000, got 1001."),
  ("actors_per_host", True, "must be a whole number, got True."),
  ("nodes/learner", None, "nodes: 'learner' is missing, got actors."),
  ("nodes/actors", None, "nodes: no group of actors besides the learner."),
  ("nodes/Actors", {"cpu": 1, "memory": "1Gi"},
   "nodes must be at most 30 lower-case letters"),
  ("nodes/learner/hosts", 2, "nodes.learner: hosts must be 1."),
  ("nodes/actors/cpu", 0, "nodes.actors: cpu must be a whole number"),
  ("nodes/actors/memory", "30GB",
   "nodes.actors: memory must be a number of Mi, Gi or Ti, got '30GB'."),
  ("nodes/actors/memory", 30, "nodes.actors.memory must be text"),
  ("nodes/actors/spots", True, "nodes.actors: Unknown field: 'spots'. Did you"),
  ("nodes/actors/spot", "yes", "nodes.actors.spot must be true or false"),
  ("nodes/actors/image", "x", "nodes.actors: image 'x' needs a tag"),
  ("nodes/actors/accelerator", {"type": "t4"},
   "nodes.actors: actors use no accelerator."),
  ("nodes/learner/accelerator", "l4",
   "nodes.learner.accelerator must be a mapping, got 'l4'."),
  ("nodes/learner/accelerator/type", "l5", "Unknown type: 'l5'. Did you mean"),
  ("nodes/learner/accelerator/topology", "2x2", "l4 takes no topology."),
  ("nodes/learner/accelerator", {"type": "tpu_v5e", "count": 4},
   "topology is missing: tpu_v5e has 1x1, 2x2, 2x4 on one host."),
  ("nodes/learner/accelerator",
   {"type": "tpu_v5e", "count": 16, "topology": "4x4"},
   "topology '4x4' is not a tpu_v5e on one host, which the learner is"),
  ("nodes/learner/accelerator",
   {"type": "tpu_v5e", "count": 8, "topology": "2x2"},
   "count is 8, but topology 2x2 has 4 chips."),
  ("environment", {"WANDB_API_KEY": "abc"}, "looks like a secret"),
  ("environment", {"CLUSTER_SPEC": "{}"}, "CLUSTER_SPEC is set by the engine."),
  ("environment", {"A B": "x"}, "variable must be the name of an"),
  ("environment", {"LEVEL": 2}, "environment.LEVEL must be text"),
  ("environment", {True: "x"}, "environment: name True must be text"),
  ("kubernetes/storage", None, "kubernetes: storage is missing."),
  ("kubernetes/provider", "gkee", "Unknown provider: 'gkee'. Did you mean 'g"),
  ("kubernetes/restarts", -1, "kubernetes: restarts must be a whole"),
  ("kubernetes/namespace", "a b", "namespace must be the name of a"),
  ("kubernetes/storage", {"claim": "c", "storage_class": "fast"},
   "kubernetes.storage: storage_class without size"),
  ("kubernetes/secrets", [{"variable": "T", "secret": "s"}],
   "kubernetes.secrets[0]: key is missing."),
  ("kubernetes/secrets", [{"variable": "T", "secret": "s", "value": "x"}],
   "kubernetes.secrets[0]: Unknown field: 'value'"),
  ("vertex/workdir", "/gcs/b", "vertex: workdir must be gs://BUCKET/PATH"),
])
def test_mistakes(tmp_path, path, value, message):
  found = error_of(tmp_path, yaml.safe_dump(changed(path, value)))
  assert message in found
  assert "\n" not in found


@pytest.mark.parametrize("text, message", [
  ("", "the file must be a mapping, got None."),
  ("- name", "the file must be a mapping, got ['name']."),
  ("name: [", "expected the node content"),
  ("name: !!python/object/apply:os.getcwd []", "could not determine a constr"),
])
def test_no_description(tmp_path, text, message):
  found = error_of(tmp_path, text)
  assert message in found
  assert "\n" not in found


def test_no_file():
  with pytest.raises(UserError, match=r"cannot be read .*pong.yaml"):
    reading.load("nowhere.yaml")
