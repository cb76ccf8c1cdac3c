"""STAC as an Acme agent; the parts that need no Acme are in `training`.

Import this package before Acme: it adds the names to JAX that dm-acme 0.4.0
needs (`compat`).
"""

from acme_stac.agent import compat

compat.apply()

from acme_stac.agent.acting import STACActor, make_actor_core  # noqa: E402
from acme_stac.agent.builder import STACBuilder  # noqa: E402
from acme_stac.agent.layouts import LayoutBuilder  # noqa: E402
from acme_stac.agent.learning import STACLearner  # noqa: E402
from acme_stac.config import STACConfig  # noqa: E402
from acme_stac.networks import STACNetworks, make_networks  # noqa: E402
from acme_stac.presets import make_config  # noqa: E402
