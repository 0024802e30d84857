"""The paper's theory where it can be checked: softmax regression with L2, bounds and all."""

from __future__ import annotations

from experiments.convex.config import Convex
from experiments.launch.cli import main


def convex(config: Convex) -> None:
    """Runs CDSGD on every graph and draws it against its bounds."""
    from experiments.convex import study as _convex  # and with it JAX

    _convex.convex(config)


if __name__ == "__main__":
    main(Convex, convex)
