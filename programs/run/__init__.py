"""What a run is: its checked description and work directory.

Imports nothing of programs.nodes and programs.launch.
"""
