"""The time of a mixing step by graph, N and mixer: ``python -m benchmarks.mixing``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro

from benchmarks._mixing import PLANS, mixing_programs, plans_of
from benchmarks._timing import alternate, ratio, report
from cdjax import mixing, topology


@dataclass(frozen=True)
class Options:
    """Times a CDSGD step Πx − αg relative to a plain SGD step x − αg on the same arrays."""

    graphs: tuple[str, ...] = ("ring", "torus", "exponential", "random_regular")
    """Graph families."""
    agents: tuple[int, ...] = (16, 64, 256, 1024, 4096)
    """Numbers of agents N."""
    size: int = 32_000_000
    """Number of float32 parameters of all agents together."""
    fresh: bool = False
    """Write the result to fresh memory, whose page faults take most of the time, instead of to the
    gradient's memory."""
    most_agents_dense: int = 1024
    """Largest N at which the dense product with Π is timed."""
    most_shifts: int = 32
    """Largest number of diagonals with which shifts are timed."""
    turns: int = 7
    """Turns per program."""
    json: Path | None = None
    """File for the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    rows = [
        {"graph": family, **_row(topology.create(family, num_agents), options)}
        for family in options.graphs
        for num_agents in options.agents
    ]
    memory = "fresh memory" if options.fresh else "the gradient's memory"
    report(
        f"time of Πx − αg into {memory}, relative to x − αg",
        rows,
        options.json,
        parameters_of_all_agents=options.size,
    )


def _row(graph: topology.Topology, options: Options) -> dict[str, Any]:
    mixers = plans_of(graph, options.most_agents_dense, most_shifts=options.most_shifts)
    shape = (graph.num_agents, options.size // graph.num_agents)
    times = alternate(mixing_programs(mixers, shape, fresh=options.fresh), turns=options.turns)
    ratios = {name: ratio(times, name, "axpy") if name in times else "" for name in PLANS}
    return {
        "agents": graph.num_agents,
        "axpy_ms": 1e3 * median(times["axpy"]),
        **ratios,
        "auto": mixing.choose(graph),
    }


if __name__ == "__main__":
    main(tyro.cli(Options))
