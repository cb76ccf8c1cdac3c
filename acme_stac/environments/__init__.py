"""Environments by name, single (dm_env) and in batches."""

from acme_stac.environments.base import BatchedEnvironment
from acme_stac.environments.batches import (
  BatchOfEnvironments,
  EnvironmentOfBatch,
)
from acme_stac.environments.catch import Catch
from acme_stac.environments.check import check
from acme_stac.environments.errors import EnvironmentFailedError
from acme_stac.environments.guard import GuardedEnvironment
from acme_stac.environments.registry import (
  NAME_FORMS,
  check_options,
  import_factory,
  imports_code,
  make,
  make_batched,
  option_types,
)
from acme_stac.environments.spec import (
  EnvironmentSpec,
  environment_spec,
  has_bounds,
  observations_fit,
  spec_from_json,
  spec_to_json,
  without_bounds,
)
