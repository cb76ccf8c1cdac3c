"""acme_stac: self-tuning actor-critics as a distributed Acme agent.

Only the configuration is imported immediately. Everything else, which needs
NumPy, JAX or the distributed stack, is imported at its first use.
"""

import importlib
import typing
from typing import Any

from acme_stac.config import STACConfig

if typing.TYPE_CHECKING:
  from acme_stac.presets import AGENTS, DOMAINS, make_config

_LAZY = {
  "AGENTS": "acme_stac.presets",
  "DOMAINS": "acme_stac.presets",
  "STACBuilder": "acme_stac.agent.builder",
  "STACNetworks": "acme_stac.networks",
  "make_config": "acme_stac.presets",
  "make_networks": "acme_stac.networks",
  "core": "acme_stac.core",
  "environments": "acme_stac.environments",
  "export_policy": "acme_stac.policy_file",
  "load_policy": "acme_stac.trained_policy",
  "save_policy": "acme_stac.policy_file",
}


def __getattr__(name: str) -> Any:
  if name not in _LAZY:
    raise AttributeError(f"module 'acme_stac' has no attribute {name!r}")
  try:
    module = importlib.import_module(_LAZY[name])
  except ImportError as error:
    raise ImportError(
      f"acme_stac.{name} cannot be imported: {error}. 'python -m"
      " acme_stac.doctor' lists what this installation lacks."
    ) from error
  return getattr(module, name, module)
