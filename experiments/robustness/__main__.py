"""Test accuracy by mixer and attack, and by fault of the network."""

from __future__ import annotations

from experiments.launch.cli import main
from experiments.robustness.config import Robustness


def robustness(config: Robustness) -> None:
    """Runs what is missing and draws tables and figure."""
    from experiments.robustness import study as _robustness  # and with it JAX

    _robustness.compare(config)


if __name__ == "__main__":
    main(Robustness, robustness)
