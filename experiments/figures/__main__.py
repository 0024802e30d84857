"""The paper's experiments, and what it leaves for later, in one command."""

from __future__ import annotations

from experiments.figures.config import Figures
from experiments.launch.cli import main


def figures(config: Figures) -> None:
    """Runs what is missing and draws."""
    from experiments.figures import study as _figures  # and with it JAX

    _figures.draw(config)


if __name__ == "__main__":
    main(Figures, figures)
