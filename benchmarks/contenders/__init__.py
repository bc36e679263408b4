"""Data sets, contenders and report of `benchmarks/worth.py`."""
