"""A run as Kubernetes manifests.

    Service <run>                  headless: gives the pods names
    NetworkPolicy <run>            closes the run's pods to all connections ...
    NetworkPolicy <run>-learner    ... except from them to the learner's ports
    PersistentVolumeClaim          the learner's work directory
    Job <run>-learner              one pod, <run>-learner-0
    Job <run>-<group>              actors' pods, <run>-<group>-0, -1, ...

Each pod runs the same command, which supervises the processes on its host.
Kubernetes replaces the pod when the command fails or the node is lost.
"""

import json
import subprocess
from typing import Any

import yaml

from programs.run.errors import UserError
from xm_launch.description import LEARNER, PORT, Kubernetes, NodeGroup, Run

# The user in the image, see xm_launch/Dockerfile.
_USER = 1000
# programs.train takes up to 60 s to save and end.
_GRACE_SECONDS = 75
# Exit code for a wrong configuration, which a restart cannot mend.
_WRONG_CONFIGURATION = 2
_DATA = "/data"

Manifest = dict[str, Any]


def manifests(run: Run) -> list[Manifest]:
  """Returns the manifests of a run, in the order in which to apply them.

  Raises:
    UserError: if the description does not suit Kubernetes.
  """
  engine = _check(run)
  return [
    _service(run),
    _deny_all(run),
    _allow_learner(run),
    *_claim(run, engine),
    *(_job(run, engine, pool) for pool in run.pools),
  ]


def _check(run: Run) -> Kubernetes:
  """Returns the settings for Kubernetes.

  Raises:
    UserError: if there are none, or a group does not suit Kubernetes.
  """
  engine = run.kubernetes
  if engine is None:
    raise UserError("A section kubernetes: is missing in the description.")
  for name, group in run.nodes.items():
    where = f"nodes.{name}"
    if group.spot and engine.provider == "any":
      raise UserError(
        f"{where}: spot needs kubernetes.provider; or select such nodes with"
        " node_selector."
      )
    accelerator = group.accelerator
    if accelerator is None:
      continue
    if accelerator.kind.gke is None:
      raise UserError(f"{where}: Kubernetes has no {accelerator.type}.")
    if accelerator.is_tpu and engine.provider != "gke":
      raise UserError(f"{where}: TPUs need kubernetes.provider gke.")
  return engine


def to_yaml(items: list[Manifest]) -> str:
  """Returns manifests as one YAML text."""
  return yaml.dump_all(items, Dumper=_Dumper, sort_keys=False, width=1000)


def apply(run: Run, items: list[Manifest]) -> int:
  """Applies manifests with kubectl; returns its exit code.

  Raises:
    UserError: if kubectl is not installed.
  """
  try:
    code = subprocess.run(
      ["kubectl", "apply", "-f", "-"], input=to_yaml(items), text=True
    ).returncode
  except FileNotFoundError as error:
    raise UserError(
      "kubectl is not installed. --dry_run prints the manifests, which can be"
      " applied elsewhere."
    ) from error
  if code == 0:
    assert run.kubernetes is not None
    print(
      f"kubectl -n {run.kubernetes.namespace} logs -f"
      f" job/{_job_name(run, LEARNER)}   shows the progress.\n"
      "docs/cloud.md explains how to watch, stop and resume."
    )
  return code


class _Dumper(yaml.SafeDumper):
  """Writes repeated values in full instead of as YAML aliases."""

  def ignore_aliases(self, data: Any) -> bool:
    return True


def _job_name(run: Run, group: str) -> str:
  return f"{run.name}-{group}"


def _labels(run: Run, group: str | None = None) -> dict[str, str]:
  labels = {
    "app.kubernetes.io/name": "acme-stac",
    "app.kubernetes.io/instance": run.name,
  }
  if group is not None:
    labels["app.kubernetes.io/component"] = group
  return labels


def _manifest(
  api: str, kind: str, run: Run, name: str, group: str | None = None
) -> Manifest:
  """Returns a manifest without its specification."""
  assert run.kubernetes is not None
  return {
    "apiVersion": api,
    "kind": kind,
    "metadata": {
      "name": name,
      "namespace": run.kubernetes.namespace,
      "labels": _labels(run, group),
    },
  }


def _service(run: Run) -> Manifest:
  """Returns the headless service that gives pods their names."""
  return {
    **_manifest("v1", "Service", run, run.name),
    "spec": {
      "clusterIP": "None",
      # A pod that has just been replaced must be found at once.
      "publishNotReadyAddresses": True,
      "selector": _labels(run),
      "ports": [
        {"name": name, "port": port} for name, port in run.ports.items()
      ],
    },
  }


def _deny_all(run: Run) -> Manifest:
  """Returns the policy that closes the run's pods to all connections."""
  return {
    **_manifest("networking.k8s.io/v1", "NetworkPolicy", run, run.name),
    "spec": {
      "podSelector": {"matchLabels": _labels(run)},
      "policyTypes": ["Ingress"],
    },
  }


def _allow_learner(run: Run) -> Manifest:
  """Returns the policy that lets the run's own pods connect to the learner's.

  Courier unpickles what it receives, and neither it nor Reverb authenticates
  the sender: whoever reaches these ports can run code in the learner's pod.
  """
  return {
    **_manifest(
      "networking.k8s.io/v1", "NetworkPolicy", run, _job_name(run, LEARNER)
    ),
    "spec": {
      "podSelector": {"matchLabels": _labels(run, LEARNER)},
      "policyTypes": ["Ingress"],
      "ingress": [{
        "from": [{"podSelector": {"matchLabels": _labels(run)}}],
        "ports": [
          {"protocol": "TCP", "port": port} for port in run.ports.values()
        ],
      }],
    },
  }


def _claim(run: Run, engine: Kubernetes) -> list[Manifest]:
  """Returns the claim of the learner's volume, unless it exists.

  It lacks the run's label, so that deleting by label keeps the results.
  """
  storage = engine.storage
  if storage.size is None:
    return []
  manifest = _manifest("v1", "PersistentVolumeClaim", run, storage.claim)
  del manifest["metadata"]["labels"]["app.kubernetes.io/instance"]
  spec: dict[str, Any] = {
    "accessModes": ["ReadWriteOnce"],
    "resources": {"requests": {"storage": storage.size}},
  }
  if storage.storage_class is not None:
    spec["storageClassName"] = storage.storage_class
  return [{**manifest, "spec": spec}]


def _job(run: Run, engine: Kubernetes, pool: str) -> Manifest:
  """Returns the Indexed Job of a pool."""
  name = run.pools[pool]
  group = run.nodes[name]
  # One bad host of actors must not use up the restarts of all hosts.
  limit = "backoffLimit" if name == LEARNER else "backoffLimitPerIndex"
  return {
    **_manifest("batch/v1", "Job", run, _job_name(run, name), name),
    "spec": {
      "completionMode": "Indexed",
      "completions": group.hosts,
      "parallelism": group.hosts,
      "podFailurePolicy": {
        # The first rule that matches decides.
        "rules": [
          {
            "action": "FailJob",
            "onExitCodes": {
              "containerName": "train",
              "operator": "In",
              "values": [_WRONG_CONFIGURATION],
            },
          },
          {
            # Evicted, preempted, or its node was drained: not counted.
            "action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
          },
        ],
      },
      # Two learners must never share a work directory.
      "podReplacementPolicy": "Failed",
      limit: engine.restarts,
      "template": {
        "metadata": {"labels": _labels(run, name)},
        "spec": _pod(run, engine, pool),
      },
    },
  }


def _pod(run: Run, engine: Kubernetes, pool: str) -> dict[str, Any]:
  """Returns the specification of a pool's pods."""
  name = run.pools[pool]
  group = run.nodes[name]
  optional = {
    **_placement(group, engine),
    "imagePullSecrets": [
      {"name": secret} for secret in engine.image_pull_secrets
    ],
  }
  volumes = _volumes(engine, name, group)
  container = {
    "name": "train",
    "image": run.image_of(group),
    "args": run.arguments(f"{_DATA}/{run.name}"),
    "env": _environment(run, engine, pool),
    "resources": _resources(group),
    "securityContext": {
      "allowPrivilegeEscalation": False,
      "readOnlyRootFilesystem": True,
      "capabilities": {"drop": ["ALL"]},
    },
    "volumeMounts": [
      {"name": volume, "mountPath": path}
      for volume, (path, _) in volumes.items()
    ],
  }
  if name == LEARNER:
    container["ports"] = [
      {"name": name, "containerPort": port} for name, port in run.ports.items()
    ]
  return {
    # Required by podFailurePolicy: the Job makes a new pod of the same name.
    "restartPolicy": "Never",
    "subdomain": run.name,
    "terminationGracePeriodSeconds": _GRACE_SECONDS,
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
      "runAsNonRoot": True,
      "runAsUser": _USER,
      "runAsGroup": _USER,
      "fsGroup": _USER,
      # Do not walk through all files of the volume at every start.
      "fsGroupChangePolicy": "OnRootMismatch",
      "seccompProfile": {"type": "RuntimeDefault"},
    },
    **{field: value for field, value in optional.items() if value},
    "containers": [container],
    "volumes": [
      {"name": volume, **source} for volume, (_, source) in volumes.items()
    ],
  }


def _cluster_spec(run: Run, pool: str) -> str:
  """Returns CLUSTER_SPEC for a pool: the DNS names of all pods."""
  hosts = {
    other: [
      f"{_job_name(run, name)}-{index}.{run.name}"
      for index in range(run.nodes[name].hosts)
    ]
    for other, name in run.pools.items()
  }
  hosts["workerpool0"] = [f"{hosts['workerpool0'][0]}:{PORT}"]
  # JOB_COMPLETION_INDEX is the pod's index in the pool.
  return json.dumps({"cluster": hosts, "task": {"type": pool}})


def _environment(
  run: Run, engine: Kubernetes, pool: str
) -> list[dict[str, Any]]:
  """Returns the environment variables of a pool's pods."""
  group = run.nodes[run.pools[pool]]
  plain = {
    "CLUSTER_SPEC": _cluster_spec(run, pool),
    # The image's files cannot be written.
    "HOME": "/tmp",
    # On the learner's volume, so that a restart need not compile again.
    "XDG_CACHE_HOME": f"{_DATA}/cache",
    # XLA would count the machine's cores, not the pod's.
    "NPROC": str(group.cpu),
    **run.environment_of(group),
  }
  return [
    *({"name": name, "value": value} for name, value in plain.items()),
    *(
      {
        "name": secret.variable,
        "valueFrom": {
          "secretKeyRef": {"name": secret.secret, "key": secret.key}
        },
      }
      for secret in engine.secrets
    ),
  ]


def _resources(group: NodeGroup) -> dict[str, dict[str, str]]:
  """Returns requests and limits, equal: such pods are evicted last."""
  amounts = {"cpu": str(group.cpu), "memory": group.memory}
  if group.accelerator is not None:
    is_tpu = group.accelerator.is_tpu
    resource = "google.com/tpu" if is_tpu else "nvidia.com/gpu"
    amounts[resource] = str(group.accelerator.count)
  return {"requests": amounts, "limits": amounts}


def _placement(group: NodeGroup, engine: Kubernetes) -> dict[str, Any]:
  """Returns the node selector and the tolerations of a group's pods."""
  selector: dict[str, str | None] = {}
  tolerated: list[str] = []
  accelerator = group.accelerator
  if accelerator is not None and accelerator.is_tpu:
    selector["cloud.google.com/gke-tpu-accelerator"] = accelerator.kind.gke
    selector["cloud.google.com/gke-tpu-topology"] = accelerator.topology
    tolerated.append("google.com/tpu")
  elif accelerator is not None:
    if engine.provider == "gke":
      selector["cloud.google.com/gke-accelerator"] = accelerator.kind.gke
    tolerated.append("nvidia.com/gpu")
  if group.spot:
    selector["cloud.google.com/gke-spot"] = "true"
    tolerated.append("cloud.google.com/gke-spot")
  return {
    "nodeSelector": {**selector, **group.node_selector},
    "tolerations": [
      {"key": key, "operator": "Exists", "effect": "NoSchedule"}
      for key in tolerated
    ],
  }


def _volumes(
  engine: Kubernetes, name: str, group: NodeGroup
) -> dict[str, tuple[str, dict[str, Any]]]:
  """Returns volume -> (mount path, source)."""
  # Actors write logs and compiled programs only, which may go with the pod.
  data: dict[str, Any] = {"emptyDir": {}}
  if name == LEARNER:
    data = {"persistentVolumeClaim": {"claimName": engine.storage.claim}}
  volumes = {"data": (_DATA, data), "tmp": ("/tmp", {"emptyDir": {}})}
  if group.accelerator is not None and group.accelerator.count > 1:
    # For NCCL: a container has 64 MiB by default. Counts as its memory.
    shared = {"medium": "Memory", "sizeLimit": "1Gi"}
    volumes["shm"] = ("/dev/shm", {"emptyDir": shared})
  return volumes
