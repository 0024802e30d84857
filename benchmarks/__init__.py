"""Benchmarks of cdjax; run one with ``python -m benchmarks.mixing``."""
