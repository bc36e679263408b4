"""`python -m hybridclf` is the program `hybridclf`."""

from .cli import app

app(prog_name="hybridclf")
