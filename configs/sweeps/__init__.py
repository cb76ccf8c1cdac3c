"""Lists of runs for programs.sweep."""
