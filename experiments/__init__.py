"""Programs over cdjax; run one with ``python -m experiments.cifar10``."""
