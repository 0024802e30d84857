"""How long agents wait for each other: ``python -m experiments.network.waiting``.

Times of computation are exponential with mean 1, and messages free. A barrier over N agents costs
the harmonic number H_N; agents on a ring wait for their neighbours only, so that a step takes as
long for 100,000 of them as for 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from cdjax import network, topology
from experiments.launch.cli import main
from experiments.report.network import against_agents
from experiments.run.errors import blame

_ORDERS = {"consensus": network.consensus, "adapt then combine": network.adapt_then_combine}


@dataclass(frozen=True)
class Waiting:
    """Seconds per step on a ring against the number of agents, and of a barrier."""

    agents: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    """Numbers of agents N."""
    steps: int = 300
    """Simulated steps; the first third is not counted."""
    seed: int = 0
    """Seed of the times of computation."""
    out: Path = Path("waiting.png")
    """File of the figure."""


def measure(config: Waiting) -> dict[str, list[float]]:
    """Prints seconds per step, and draws them; returns them by order."""
    with blame("--agents"):
        found = {
            name: [_seconds(config, make(), number) for number in config.agents]
            for name, make in _ORDERS.items()
        }
    found["barrier"] = [float(np.sum(1 / np.arange(1, number + 1))) for number in config.agents]
    for name, seconds in found.items():
        print(name, *(f"{value:.3f}" for value in seconds))
    against_agents(config.agents, found).savefig(config.out, dpi=120)
    return found


def _seconds(config: Waiting, order: network.Order, num_agents: int) -> float:
    """Seconds per step, on average over the agents and the last two thirds of the steps."""
    links = network.links(topology.ring(num_agents))
    key = jax.random.key(config.seed)
    compute = network.compute_times(1.0, num_agents, law="exponential", key=key)
    times = network.clock(order, links, compute, 0, num_steps=config.steps)
    first = config.steps // 3
    return float(np.mean(times[-1] - times[first - 1]) / (config.steps - first))


if __name__ == "__main__":
    main(Waiting(), measure)
