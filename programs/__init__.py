"""Commands; each file here is one, run as python -m programs.NAME."""
