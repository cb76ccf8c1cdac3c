"""What each node of a run does, however it was started."""
