"""The options of the advice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.run import config


@dataclass(frozen=True)
class Advise:
    """Which graph and which order are fast on a network.

    For every topology and order the seconds per step and the seconds in which disagreement halves,
    beside a server and an all-reduce; no training. It says what is best, and why.
    """

    clock: config.Clock = config.Clock(compute_time="0.4s")

    agents: int = 16
    """Number of agents N."""
    params: str = "1M"
    """Parameters of the model, such as 124M."""
    bytes_per_param: float = 4.0
    """Bytes of a parameter in a message: 4 in float32, 2 in bfloat16, less where messages are
    compressed."""
    period: int = 1
    """Steps between exchanges."""
    topologies: tuple[str, ...] = ()
    """Topologies to look at (default: all families, and those of one peer per step)."""
    seed: int = 0
    """Seed of the times of computation, where they are random."""
    json: bool = False
    """Print JSON in place of the table."""
    out: Path | None = None
    """File of the plot, a PNG or PDF (default: none)."""
