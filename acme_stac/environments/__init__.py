"""Environments by name, singly (dm_env) and in batches."""

from acme_stac.environments.base import (
  BatchedEnvironment,
  BatchOfEnvironments,
  EnvironmentOfBatch,
  EnvironmentSpec,
  environment_spec,
  has_bounds,
  observations_fit,
  spec_from_json,
  spec_to_json,
  without_bounds,
)
from acme_stac.environments.catch import Catch
from acme_stac.environments.check import check
from acme_stac.environments.guard import (
  EnvironmentFailedError,
  GuardedEnvironment,
)
from acme_stac.environments.registry import (
  NAME_FORMS,
  check_options,
  import_factory,
  imports_code,
  make,
  make_batched,
  option_types,
)
