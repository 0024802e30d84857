"""Every system of the paper's Table 1 on the same data, model and runner."""

from __future__ import annotations

from experiments.compare.config import Compare
from experiments.launch.cli import main


def compare(config: Compare) -> None:
    """Runs what is missing and draws table and figure."""
    from experiments.compare import study as _comparison  # and with it JAX

    _comparison.compare(config)


if __name__ == "__main__":
    main(Compare, compare)
