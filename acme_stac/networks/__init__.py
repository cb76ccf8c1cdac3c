"""Haiku networks of Table 2 and their factory."""

from acme_stac.networks.factory import STACNetworks, make_networks
