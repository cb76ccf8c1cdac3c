"""The job of Vertex AI, before XManager and behind it.

Golden files are remade by

  python -m xm_launch --config=xm_launch/pong.yaml --engine=vertex --dry_run \
    > tests/xm_launch/golden/pong_vertex.json

with TIME for the time in it, and those before XManager by hand.
"""

import json
import os
import pathlib
import re
import subprocess

import pytest
import yaml

from programs.run.errors import UserError
from tests.xm_launch.test_description import EXAMPLE, changed
from xm_launch import reading, vertex

HERE = pathlib.Path(__file__).parent
CASES = {
  "pong_vertex": EXAMPLE,
  "tpu_vertex": HERE / "data" / "vertex_tpu.yaml",
}
needs_xmanager = pytest.mark.skipif(
  vertex.xmanager_python() is None, reason="needs .venv-xm: make xm"
)


def load_changed(tmp_path, path, value):
  file = tmp_path / "run.yaml"
  file.write_text(yaml.safe_dump(changed(path, value)))
  return reading.load(str(file))


@pytest.mark.parametrize("name", CASES)
def test_golden_request(name):
  """What XManager gets; this part needs no XManager."""
  request = vertex.job(reading.load(str(CASES[name])))
  golden = HERE / "golden" / f"{name}_request.json"
  assert json.dumps(request, indent=2) + "\n" == golden.read_text()


@needs_xmanager
@pytest.mark.parametrize("name", CASES)
def test_golden_job(name, capfd):
  """What XManager makes of it."""
  run = reading.load(str(CASES[name]))
  assert vertex.submit(run, dry_run=True) == 0
  text = capfd.readouterr().out
  text = re.sub(r"custom-job-[-:.\d]+", "custom-job-TIME", text)
  assert text == (HERE / "golden" / f"{name}.json").read_text()


def test_pools_are_those_of_the_cluster():
  """Vertex AI names them workerpool0, 1, ... in this order in CLUSTER_SPEC."""
  run = reading.load(str(EXAMPLE))
  jobs = vertex.job(run)["jobs"]
  assert [job["name"] for job in jobs] == ["workerpool0", "workerpool1"]
  assert [job["requirements"]["replicas"] for job in jobs] == [1, 4]
  for job in jobs:
    assert "--num_actors=16" in job["args"]
    assert "--launch=hosts" in job["args"]
  # What the learner writes outlives it.
  assert "--workdir=/gcs/my-bucket/runs/pong" in jobs[0]["args"]
  assert "--workdir=/tmp/pong" in jobs[1]["args"]


@pytest.mark.parametrize("path, value, message", [
  ("vertex", None, "A section vertex: is missing"),
  ("nodes/actors/spot", True, "nodes.actors: XManager cannot ask .* spot mach"),
  ("nodes/actors/node_selector", {"a": "b"}, "node_selector is for Kubernetes"),
  ("nodes/learner/accelerator", {"type": "h100"}, "no machine .* with h100"),
  ("kubernetes/secrets", [{"variable": "T", "secret": "s", "key": "k"}],
   "Vertex AI shows a job's environment"),
  ("nodes", {
    name: {"cpu": 1, "memory": "1Gi"}
    for name in ("learner", "a", "b", "c", "d")
  }, "Vertex AI takes at most 4 groups, the learner's included; got 5."),
])
def test_mistakes(tmp_path, path, value, message):
  with pytest.raises(UserError, match=message):
    vertex.job(load_changed(tmp_path, path, value))


def test_without_xmanager(monkeypatch):
  monkeypatch.setattr(vertex, "xmanager_python", lambda: None)
  with pytest.raises(UserError, match="'make xm' makes .*, in .venv-xm"):
    vertex.submit(reading.load(str(EXAMPLE)), dry_run=True)


@needs_xmanager
def test_no_such_machine(tmp_path, capfd):
  run = load_changed(tmp_path, "nodes/actors/cpu", 1000)
  assert vertex.submit(run, dry_run=True) == 2
  error = capfd.readouterr().err
  assert re.search(r"^Error: \(cpu=1000.* does not fit .*\n\Z", error, re.M)


@needs_xmanager
def test_no_account(monkeypatch, tmp_path, capfd):
  """Nothing is submitted without one, and the error says so in a line."""
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json")
  assert vertex.submit(reading.load(str(EXAMPLE)), dry_run=False) == 2
  last = capfd.readouterr().err.splitlines()[-1]
  assert last.startswith("Error: ") and "/nowhere.json" in last


# Vertex AI's API answers from here; all else is XManager's and Google's code.
SUBMIT = """
import sys
from unittest import mock
from xm_launch import xmanager_job

class Client:
  def create_custom_job(self, parent, custom_job, timeout):
    if {refused}:
      raise xmanager_job.GoogleAPIError("not allowed")
    pools = custom_job.job_spec.worker_pool_specs
    print([(p.machine_spec.machine_type, p.replica_count) for p in pools])
    custom_job.name = parent + "/customJobs/1"
    return custom_job

  def parse_custom_job_path(self, path):
    return {{"project": "p", "location": "l", "custom_job": "1"}}

anonymous = (xmanager_job.credentials.AnonymousCredentials(), "my-project")
with (
  mock.patch.object(xmanager_job.auth, "default", return_value=anonymous),
  mock.patch.object(
    xmanager_job.xm_auth, "get_service_account", return_value="a"),
  mock.patch.object(
    xmanager_job.aiplatform.CustomJob, "_instantiate_client",
    return_value=Client()),
):
  sys.exit(xmanager_job.main(["xmanager_job"]))
"""


@needs_xmanager
@pytest.mark.parametrize("refused", [False, True])
def test_submit(tmp_path, refused):
  result = subprocess.run(
    [vertex.xmanager_python(), "-c", SUBMIT.format(refused=refused)],
    input=(HERE / "golden" / "pong_vertex_request.json").read_text(),
    capture_output=True,
    text=True,
    cwd=vertex.ROOT,
    # XManager keeps its experiments there.
    env={**os.environ, "HOME": str(tmp_path)},
  )
  assert result.returncode == refused, result.stderr
  if refused:
    last = result.stderr.splitlines()[-1]
    assert last == "Google Cloud refused the job: not allowed"
  else:
    assert "[('g2-standard-8', 1), ('n1-standard-16', 4)]" in result.stdout
