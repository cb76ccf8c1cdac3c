"""How the nodes of a run are started, watched and stopped."""
