"""Environments by name, singly (dm_env) and in batches."""

from acme_stac.environments.base import (
  BatchedEnvironment,
  BatchOfEnvironments,
  EnvironmentOfBatch,
  EnvironmentSpec,
  environment_spec,
  spec_from_json,
  spec_to_json,
)
from acme_stac.environments.catch import Catch
from acme_stac.environments.check import check
from acme_stac.environments.guard import (
  EnvironmentFailedError,
  GuardedEnvironment,
)
from acme_stac.environments.registry import (
  import_factory,
  imports_code,
  make,
  make_batched,
  option_types,
)
