"""A run as a custom job of Vertex AI, submitted through XManager.

Each host is one container that runs the project's own command. Launchpad's
launcher for Vertex AI is not used: it pickles every node into a generated image
that cannot be built (Debian has no libpython3.10), gives a node a single port,
and cannot put several nodes on a host.

XManager needs an environment of its own ('make xm'). The job goes there, to
xm_launch.xmanager_job, as JSON.
"""

import json
import os
import pathlib
import subprocess
from typing import Any

from programs.run.errors import UserError
from xm_launch.description import LEARNER, NodeGroup, Run

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The limit of Vertex AI.
_MAX_POOLS = 4


def job(run: Run) -> dict[str, Any]:
  """Returns the request to xm_launch.xmanager_job.

  Raises:
    UserError: if the description has no section vertex, or does not suit Vertex
      AI.
  """
  engine = run.vertex
  if engine is None:
    raise UserError("A section vertex: is missing in the description.")
  if len(run.pools) > _MAX_POOLS:
    raise UserError(
      f"nodes: Vertex AI takes at most {_MAX_POOLS} groups, the learner's"
      f" included; got {len(run.pools)}."
    )
  if run.kubernetes is not None and run.kubernetes.secrets:
    raise UserError(
      "kubernetes.secrets: Vertex AI shows a job's environment to everyone who"
      " can see the job. Let the job's service account read the secret instead."
    )
  return {
    "name": run.name,
    "project": engine.project,
    "location": engine.location,
    "bucket": engine.bucket,
    "jobs": [_pool(run, pool) for pool in run.pools],
  }


def submit(run: Run, dry_run: bool) -> int:
  """Submits a run, or only prints the job; returns an exit code.

  Raises:
    UserError: as `job`, and if XManager is not installed.
  """
  python = xmanager_python()
  if python is None:
    raise UserError(
      "XManager is not installed: 'make xm' makes its environment, in"
      " .venv-xm."
    )
  command = [str(python), "-m", "xm_launch.xmanager_job"]
  return subprocess.run(
    [*command, "--dry_run"] if dry_run else command,
    input=json.dumps(job(run)),
    text=True,
    cwd=ROOT,
    # Each of Google's libraries warns that Python 3.10 is old.
    env={**os.environ, "PYTHONWARNINGS": "ignore::FutureWarning"},
  ).returncode


def xmanager_python() -> pathlib.Path | None:
  """Returns the interpreter that has XManager, or None."""
  path = ROOT / ".venv-xm" / "bin" / "python"
  return path if path.exists() else None


def _pool(run: Run, pool: str) -> dict[str, Any]:
  """Returns a worker pool, which is a job of XManager."""
  assert run.vertex is not None
  name = run.pools[pool]
  group = run.nodes[name]
  workdir = (
    run.vertex.mounted_workdir if name == LEARNER else f"/tmp/{run.name}"
  )
  return {
    "name": pool,
    "image": run.image_of(group),
    "args": run.arguments(workdir),
    # CLUSTER_SPEC is set by Vertex AI.
    "env": run.environment_of(group),
    "requirements": _requirements(name, group),
  }


def _requirements(name: str, group: NodeGroup) -> dict[str, Any]:
  """Returns keyword arguments of xm.JobRequirements."""
  where = f"nodes.{name}"
  if group.spot:
    raise UserError(f"{where}: XManager cannot ask for spot machines.")
  if group.node_selector:
    raise UserError(f"{where}: node_selector is for Kubernetes only.")
  requirements = {
    "cpu": group.cpu,
    "ram": group.memory_bytes,
    "replicas": group.hosts,
  }
  accelerator = group.accelerator
  if accelerator is not None:
    if accelerator.kind.xmanager is None:
      raise UserError(
        f"{where}: XManager knows no machine of Vertex AI with"
        f" {accelerator.type}."
      )
    requirements[accelerator.kind.xmanager] = accelerator.count
  return requirements
