"""Submits a run through XManager.

  python -m xm_launch.xmanager_job [--dry_run] < JOB.json

Reads a request as xm_launch.vertex.job makes it. XManager chooses the machines
and makes Vertex AI's custom job. With --dry_run the job is printed where
XManager would send it, so that no account is needed. Runs in .venv-xm, which
has neither JAX nor Launchpad.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any
from unittest import mock

from absl import flags
from google import auth
from google.api_core.exceptions import GoogleAPIError
from google.auth import credentials, exceptions
from google.cloud import aiplatform
from googleapiclient.errors import HttpError
from xmanager import xm, xm_flags, xm_local
from xmanager.cloud import auth as xm_auth
from xmanager.cloud import vertex
from xmanager.xm_local import executables


class _NotSent(Exception):  # noqa: N818  Not an error.
  """Carries the custom job out of XManager."""


def make_jobs(request: Mapping[str, Any]) -> dict[str, xm.Job]:
  """Returns a job of XManager for each worker pool, the learner's first."""
  return {
    pool["name"]: xm.Job(
      # XManager's own packaging would push the image to a registry that Google
      # has shut down.
      executable=executables.GoogleContainerRegistryImage(
        name=pool["name"], image_path=pool["image"]
      ),
      executor=xm_local.Vertex(xm.JobRequirements(**pool["requirements"])),
      args=pool["args"],
      env_vars=pool["env"],
    )
    for pool in request["jobs"]
  }


def describe(request: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the custom job that `submit` would send, and its parent."""
  project = request["project"]
  account = (
    f"{xm_flags.GCP_SERVICE_ACCOUNT_NAME.value}@{project}"
    ".iam.gserviceaccount.com"
  )
  anonymous = (credentials.AnonymousCredentials(), project)
  with (
    mock.patch.object(auth, "default", return_value=anonymous),
    mock.patch.object(xm_auth, "get_service_account", return_value=account),
    mock.patch.object(
      aiplatform.CustomJob, "_instantiate_client", return_value=_Client()
    ),
  ):
    try:
      client = vertex.Client(project, request["location"])
      client.launch(request["name"], list(make_jobs(request).values()))
    except _NotSent as message:
      parent, custom_job = message.args
  return {
    "parent": parent,
    "custom_job": type(custom_job).to_dict(
      custom_job,
      use_integers_for_enums=False,
      always_print_fields_with_no_presence=False,
    ),
  }


def submit(request: Mapping[str, Any]):
  """Submits a run as a work unit of an XManager experiment."""
  vertex.set_default_client(
    vertex.Client(request["project"], request["location"])
  )
  with xm_local.create_experiment(request["name"]) as experiment:
    experiment.add(xm.JobGroup(**make_jobs(request)))


def _show_machines(request: Mapping[str, Any]):
  """Prints the machines that XManager chose, which may be surprising."""
  for name, job in make_jobs(request).items():
    machine = vertex.get_machine_spec(job)["machine_type"]
    replicas = job.executor.requirements.replicas
    print(f"{name}: {replicas} x {machine}", file=sys.stderr)


class _Client:
  """Takes the place of Vertex AI's client."""

  def create_custom_job(self, parent: str, custom_job: Any, timeout: Any):
    """Raises _NotSent with the arguments."""
    del timeout
    raise _NotSent(parent, custom_job)


def main(argv: list[str]) -> int:
  """Runs the command; returns its exit code."""
  request = json.load(sys.stdin)
  flags.FLAGS(argv[:1])
  # XManager reads these variables.
  os.environ["GOOGLE_CLOUD_BUCKET_NAME"] = request["bucket"]
  os.environ["GOOGLE_CLOUD_PROJECT"] = request["project"]
  try:
    _show_machines(request)
    if "--dry_run" in argv:
      # Google's library logs to standard output.
      logging.disable(logging.INFO)
      print(json.dumps(describe(request), indent=2))
    else:
      submit(request)
  except (ValueError, exceptions.GoogleAuthError) as error:
    # There is no such machine, or no account.
    print(f"Error: {error}", file=sys.stderr)
    return 2
  except (GoogleAPIError, HttpError) as error:
    print(f"Google Cloud refused the job: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv))
