"""The manifests of a run. Golden files are remade by

  python -m xm_launch --config=xm_launch/pong.yaml --dry_run \
    > tests/xm_launch/golden/pong.yaml

and so on.
"""

import json
import os
import pathlib
import stat
import subprocess

import pytest
import yaml

from programs.run.errors import UserError
from tests.xm_launch.test_description import EXAMPLE, changed
from xm_launch import kubernetes, reading, vertex

HERE = pathlib.Path(__file__).parent
CASES = {"pong": EXAMPLE, "tpu": HERE / "data" / "tpu.yaml"}


def load(name):
  return reading.load(str(CASES[name]))


def load_changed(tmp_path, path, value):
  file = tmp_path / "run.yaml"
  file.write_text(yaml.safe_dump(changed(path, value)))
  return reading.load(str(file))


@pytest.fixture(params=CASES)
def run(request):
  return load(request.param)


def by_kind(run, kind):
  return {
    item["metadata"]["name"]: item
    for item in kubernetes.manifests(run)
    if item["kind"] == kind
  }


def pod(job):
  return job["spec"]["template"]["spec"]


def cluster(job):
  container, = pod(job)["containers"]
  value, = [
    variable["value"]
    for variable in container["env"]
    if variable["name"] == "CLUSTER_SPEC"
  ]
  return json.loads(value)


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
  text = kubernetes.to_yaml(kubernetes.manifests(load(name)))
  assert text == (HERE / "golden" / f"{name}.yaml").read_text()


def test_hosts_are_the_pods(run):
  """Kubernetes calls pod i of an Indexed Job <job>-<i>.<subdomain>."""
  jobs = by_kind(run, "Job")
  service, = by_kind(run, "Service")
  made = {
    f"{name}-{index}.{pod(job)['subdomain']}"
    for name, job in jobs.items()
    for index in range(job["spec"]["completions"])
  }
  for job in jobs.values():
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    assert pod(job)["subdomain"] == service
    listed = cluster(job)["cluster"]
    assert listed["workerpool0"] == [f"{run.name}-learner-0.{run.name}:7070"]
    names = [host for pool in listed.values() for host in pool]
    assert {name.partition(":")[0] for name in names} == made
    assert len(names) == len(made)


def test_every_pool_is_told_which_it_is(run):
  jobs = by_kind(run, "Job")
  for name, job in jobs.items():
    spec = cluster(job)
    task = spec["task"]
    # Which of them a pod is, JOB_COMPLETION_INDEX says.
    assert set(task) == {"type"}
    group = run.nodes[run.pools[task["type"]]]
    assert len(spec["cluster"][task["type"]]) == group.hosts
    assert job["spec"]["completions"] == group.hosts
    assert name == f"{run.name}-{run.pools[task['type']]}"
  assert len(jobs) == len(run.pools)


def matches(selector, labels):
  return selector["matchLabels"].items() <= labels.items()


def test_only_the_run_reaches_the_learner(run):
  policies = by_kind(run, "NetworkPolicy")
  labels = {
    name: job["spec"]["template"]["metadata"]["labels"]
    for name, job in by_kind(run, "Job").items()
  }
  other = {**labels[f"{run.name}-learner"], "app.kubernetes.io/instance": "x"}
  deny = policies[run.name]["spec"]
  assert deny["policyTypes"] == ["Ingress"] and "ingress" not in deny
  assert all(matches(deny["podSelector"], of) for of in labels.values())
  assert not matches(deny["podSelector"], other)
  allow = policies[f"{run.name}-learner"]["spec"]
  assert [
    name for name, of in labels.items() if matches(allow["podSelector"], of)
  ] == [f"{run.name}-learner"]
  rule, = allow["ingress"]
  source, = rule["from"]
  assert set(source) == {"podSelector"}
  assert all(matches(source["podSelector"], of) for of in labels.values())
  assert not matches(source["podSelector"], other)
  assert [(port["protocol"], port["port"]) for port in rule["ports"]] == [
    ("TCP", 7070), ("TCP", 7071), ("TCP", 7072)
  ]


def test_restarts(run):
  for name, job in by_kind(run, "Job").items():
    spec = job["spec"]
    assert pod(job)["restartPolicy"] == "Never"
    first, second = spec["podFailurePolicy"]["rules"]
    assert first["action"] == "FailJob"
    assert first["onExitCodes"]["values"] == [2]
    container, = pod(job)["containers"]
    assert first["onExitCodes"]["containerName"] == container["name"]
    assert second["action"] == "Ignore"
    # A learner's update and checkpoint fit, 60 s.
    assert pod(job)["terminationGracePeriodSeconds"] > 60
    field = "backoffLimit" if name.endswith("-learner") else (
      "backoffLimitPerIndex"
    )
    assert spec[field] == run.kubernetes.restarts
    # Everything that is written has a volume.
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/data", "/tmp"} <= mounts
    workdir, = [
      argument.partition("=")[2]
      for argument in container["args"]
      if argument.startswith("--workdir=")
    ]
    assert workdir.startswith("/data/")


def test_only_the_learner_keeps_what_it_writes(run):
  jobs = by_kind(run, "Job")
  for name, job in jobs.items():
    data, = [v for v in pod(job)["volumes"] if v["name"] == "data"]
    kept = "persistentVolumeClaim" in data
    assert kept == name.endswith("-learner")


def test_only_the_learner_has_an_accelerator(run):
  for name, job in by_kind(run, "Job").items():
    container, = pod(job)["containers"]
    limits = container["resources"]["limits"]
    assert container["resources"]["requests"] == limits
    assert (len(limits) == 3) == name.endswith("-learner")
    variables = {variable["name"] for variable in container["env"]}
    assert ("JAX_PLATFORMS" in variables) == name.endswith("-learner")


def test_secrets_are_named_only():
  run = load("tpu")
  for job in by_kind(run, "Job").values():
    container, = pod(job)["containers"]
    found = [v for v in container["env"] if v["name"] == "UPLOAD_TOKEN"]
    assert found == [{
      "name": "UPLOAD_TOKEN",
      "valueFrom": {"secretKeyRef": {"name": "uploads", "key": "token"}},
    }]


def test_deleting_by_label_keeps_the_results():
  run = load("pong")
  claim, = by_kind(run, "PersistentVolumeClaim").values()
  assert "app.kubernetes.io/instance" not in claim["metadata"]["labels"]
  assert not by_kind(load("tpu"), "PersistentVolumeClaim")


def test_any_provider_has_no_labels_of_gke(tmp_path):
  run = load_changed(tmp_path, "kubernetes/provider", "any")
  assert "gke" not in kubernetes.to_yaml(kubernetes.manifests(run))
  job = by_kind(run, "Job")["pong-learner"]
  container, = pod(job)["containers"]
  assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_several_gpus_share_memory(tmp_path):
  accelerator = {"type": "h100", "count": 8}
  run = load_changed(tmp_path, "nodes/learner/accelerator", accelerator)
  container, = pod(by_kind(run, "Job")["pong-learner"])["containers"]
  assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


@pytest.mark.parametrize("path, value, message", [
  ("kubernetes", None, "A section kubernetes: is missing"),
  ("name", "a" * 30 + "-pong", "at most 30"),
  ("nodes/learner/accelerator", {"type": "tpu_v3", "count": 8},
   "nodes.learner: Kubernetes has no tpu_v3."),
])
def test_mistakes(tmp_path, path, value, message):
  with pytest.raises(UserError, match=message):
    kubernetes.manifests(load_changed(tmp_path, path, value))


def test_spot_needs_a_provider(tmp_path):
  data = changed("kubernetes/provider", "any")
  data["nodes"]["actors"]["spot"] = True
  path = tmp_path / "run.yaml"
  path.write_text(yaml.safe_dump(data))
  with pytest.raises(UserError, match="nodes.actors: spot needs kubernetes.pr"):
    kubernetes.manifests(reading.load(str(path)))


def test_tpus_need_gke(tmp_path):
  data = yaml.safe_load(CASES["tpu"].read_text())
  data["kubernetes"]["provider"] = "any"
  del data["nodes"]["spare"]
  path = tmp_path / "run.yaml"
  path.write_text(yaml.safe_dump(data))
  with pytest.raises(UserError, match="TPUs need kubernetes.provider gke"):
    kubernetes.manifests(reading.load(str(path)))


@pytest.mark.parametrize("code", [0, 1])
def test_apply_hands_everything_to_kubectl(
  tmp_path, monkeypatch, capsys, code
):
  kubectl = tmp_path / "kubectl"
  kubectl.write_text(
    f"#!/bin/sh\necho \"$@\" > {tmp_path}/arguments\ncat > {tmp_path}/input\n"
    f"exit {code}\n"
  )
  kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
  run = load("pong")
  items = kubernetes.manifests(run)
  assert kubernetes.apply(run, items) == code
  assert (tmp_path / "arguments").read_text() == "apply -f -\n"
  assert list(yaml.safe_load_all((tmp_path / "input").read_text())) == items
  assert ("logs -f job/pong-learner" in capsys.readouterr().out) == (code == 0)


def test_apply_without_kubectl(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  run = load("pong")
  with pytest.raises(UserError, match="kubectl is not installed"):
    kubernetes.apply(run, kubernetes.manifests(run))


# Runs with XManager's packages, where Kubernetes' own client is.
STRICT = """
import re, sys, yaml
from kubernetes.client import models

def check(value, kind, where):
  if match := re.fullmatch(r"list\\[(.*)\\]", kind):
    for i, item in enumerate(value):
      check(item, match.group(1), f"{where}[{i}]")
  elif hasattr(models, kind):
    model = getattr(models, kind)
    names = {v: k for k, v in model.attribute_map.items()}
    for name, item in value.items():
      assert name in names, f"{where}: {kind} has no {name}"
      check(item, model.openapi_types[names[name]], f"{where}.{name}")
  elif kind in ("int", "bool", "str"):
    assert type(value).__name__ == kind, f"{where}: {value!r} is no {kind}"

for item in yaml.safe_load_all(sys.stdin):
  check(item, "V1" + item["kind"], item["kind"])
print("checked")
"""


@pytest.mark.skipif(
  vertex.xmanager_python() is None, reason="needs .venv-xm: make xm"
)
def test_fields_are_those_of_the_api(run):
  def check(text):
    return subprocess.run(
      [vertex.xmanager_python(), "-c", STRICT],
      input=text,
      capture_output=True,
      text=True,
    )

  text = kubernetes.to_yaml(kubernetes.manifests(run))
  result = check(text)
  assert result.stdout == "checked\n", result.stderr
  wrong = check(text.replace("restartPolicy", "restartsPolicy"))
  assert "V1PodSpec has no restartsPolicy" in wrong.stderr
