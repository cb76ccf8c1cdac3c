"""Runs that an older version of the project began."""

import json

from acme_stac import environments
from configs import small
from programs.run import resume, validation


def make(workdir):
  return validation.make_experiment(
    small.get_config("catch"), 1, str(workdir)
  )


def test_networks_of_an_older_run_do_not_learn_of_bounds(tmp_path):
  """Its config.json has no bounds, and its parameters are of such networks."""
  new = make(tmp_path)
  assert environments.has_bounds(new.environment_spec)
  described = new.to_json()
  config = tmp_path / "config.json"
  config.write_text(json.dumps(described))
  assert resume.prepare_workdir(new).experiment == new
  for bound in ("minimum", "maximum"):
    del described["environment_spec"]["observations"][bound]
  config.write_text(json.dumps(described))
  resumed = resume.prepare_workdir(new).experiment
  assert not environments.has_bounds(resumed.environment_spec)
  assert resumed.to_json()["environment_spec"] == described["environment_spec"]
