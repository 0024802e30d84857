"""The rows of ``--algorithm``, a file for each family; ``run/algorithm.py`` gathers them."""
