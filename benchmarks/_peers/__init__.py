"""What ``python -m benchmarks.peers`` compares, each program in a process of its own."""
