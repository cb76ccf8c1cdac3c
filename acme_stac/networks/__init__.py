"""The Haiku networks of Table 2, their factory, and policies that use them."""

from acme_stac.networks.actions import ActionSpace, make_action_space
from acme_stac.networks.factory import STACNetworks, make_networks
from acme_stac.networks.policy import ActingState, Policy, make_policy
