"""What the manifests say is what programs.train --launch=hosts understands."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from programs.launch import cluster as cluster_lib
from tests.xm_launch.test_kubernetes import CASES, by_kind, cluster, load, pod


@pytest.mark.parametrize("name", CASES)
def test_every_pod_knows_its_place(name, monkeypatch):
  run = load(name)
  found = []
  for job in by_kind(run, "Job").values():
    container, = pod(job)["containers"]
    spec = json.dumps(cluster(job))
    monkeypatch.setenv("CLUSTER_SPEC", spec)
    for index in range(job["spec"]["completions"]):
      # Kubernetes sets it in the pods of an Indexed Job.
      monkeypatch.setenv("JOB_COMPLETION_INDEX", str(index))
      read = cluster_lib.read(None, None, run.actors_per_host)
      assert f"--num_actors={run.actors_per_host}" in container["args"]
      assert read.num_actors == run.num_actors
      assert read.port == 7070
      assert read.learner_host == f"{run.name}-learner-0.{run.name}"
      assert read.host == f"{job['metadata']['name']}-{index}.{run.name}"
      found.append(read.index)
  assert found == [None, *range(len(found) - 1)]


@pytest.mark.parametrize("queues", [1, 3])
def test_ports_are_those_of_the_nodes(queues):
  run = dataclasses.replace(load("pong"), queues=queues)
  nodes = [
    ("replay", 0), ("counter", 0), ("variables", 0),
    *[("replay", number) for number in range(1, queues)],
  ]
  host = cluster_lib.Cluster("learner", 7070, ("actors",), 1, 0)
  addresses = [host.address(group, number) for group, number in nodes]
  assert addresses == [f"learner:{port}" for port in run.ports.values()]
  service = by_kind(run, "Service")["pong"]["spec"]["ports"]
  assert {p["name"]: p["port"] for p in service} == run.ports
  policy = by_kind(run, "NetworkPolicy")["pong-learner"]["spec"]
  (rule,) = policy["ingress"]
  assert [p["port"] for p in rule["ports"]] == list(run.ports.values())
  given = [a for a in run.arguments("/data") if "num_queues" in a]
  assert given == [f"--config.num_queues={queues}"] * (queues > 1)


def test_vertex_ai_names_other_ports(monkeypatch):
  """Its CLUSTER_SPEC, as others have printed it."""
  monkeypatch.setenv("CLUSTER_SPEC", json.dumps({
    "cluster": {
      "workerpool0": ["cmle-training-workerpool0-ab-0:2222"],
      "workerpool1": [
        "cmle-training-workerpool1-ab-0:2222",
        "cmle-training-workerpool1-ab-1:2222",
      ],
    },
    "environment": "cloud",
    "task": {"type": "workerpool1", "index": 1, "trial": ""},
    "job": "{}",
  }))
  read = cluster_lib.read(None, None, 4)
  assert read.index == 1
  assert read.address("replay") == "cmle-training-workerpool0-ab-0:2222"
  assert read.address("variables") == "cmle-training-workerpool0-ab-0:2224"


@pytest.mark.slow
def test_a_pod_that_is_told_to_go_has_not_succeeded(tmp_path):
  """Else Kubernetes would take the run for done when a node is drained.

  A pod that is deleted and whose container then ends with 0 has succeeded, and
  the index of its Job is complete.
  """
  spec = {
    "cluster": {"workerpool0": ["127.0.0.1:9"], "workerpool1": ["127.0.0.2"]},
    "task": {"type": "workerpool1"},
  }
  process = subprocess.Popen(
    [
      sys.executable, "-m", "programs.train", "--launch=hosts",
      "--config=configs/small.py:catch", f"--workdir={tmp_path}",
    ],
    env={
      **os.environ,
      "CLUSTER_SPEC": json.dumps(spec),
      "JOB_COMPLETION_INDEX": "0",
    },
    cwd=pathlib.Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout is not None
    # The learner's host does not answer: this one waits for it.
    assert any("host of actors" in line for line in process.stdout)
    time.sleep(5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
  finally:
    process.kill()
