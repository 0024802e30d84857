"""The sections of ``python -m benchmarks.accelerator``, a question a file."""
