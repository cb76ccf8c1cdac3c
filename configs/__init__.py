"""One configuration file per domain."""
