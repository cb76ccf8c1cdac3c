"""What a run is: its flags, checked description and work directory.

Imports nothing of programs.nodes and programs.launch.
"""
