"""Measures what the parts of a run cost: python -m programs.benchmark."""
