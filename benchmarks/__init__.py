"""Measures streamq against a bare loop, side by side in one run: ``python -m benchmarks``."""
