"""What a run is: its flags, its checked description and its directory."""
