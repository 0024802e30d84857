"""Time and bytes of a mix between devices: ``python -m benchmarks.exchange``.

Without accelerators it runs on eight virtual CPU devices, which share the cores and the memory.
"""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get(
    "XLA_FLAGS", ""
)

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import tyro

import cdjax
from benchmarks._collectives import bytes_received
from benchmarks._timing import alternate, ratio, report
from cdjax import mixing, models, sharding, topology
from cdjax.mixing._shifts import shifts_of


@dataclass(frozen=True)
class Options:
    """Times a mix by neighbour exchange, and one by shifts, against one that gathers all agents."""

    graphs: tuple[str, ...] = ("ring", "torus", "exponential", "erdos_renyi")
    """Graph families."""
    agents: tuple[int, ...] = (8, 16, 32, 64)
    """Numbers of agents N; multiples of the number of devices."""
    image_size: int = 8
    """Side of the images in pixels, which sets the size of the paper's CNN; the paper has 32."""
    devices: int | None = None
    """Number of devices (default: all)."""
    most_shifts: int = 8
    """Largest number of diagonals with which shifts are timed."""
    turns: int = 7
    """Turns per program."""
    json: Path | None = None
    """File for the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    mesh = sharding.agent_mesh(options.devices)
    images = jnp.zeros((1, options.image_size, options.image_size, 3))
    one_agent, _ = models.init_model(models.CNN(), jax.random.key(0), images)
    rows = [
        {"graph": family, **_row(topology.create(family, num_agents), one_agent, mesh, options)}
        for family in options.graphs
        for num_agents in options.agents
    ]
    size = sum(x.size for x in jax.tree.leaves(one_agent))
    report("a mix between devices", rows, options.json, parameters_per_agent=size)


def _row(
    graph: topology.Topology, one_agent: cdjax.Params, mesh: jax.sharding.Mesh, options: Options
) -> dict[str, Any]:
    params = sharding.shard_agents(cdjax.replicate(one_agent, graph.num_agents), mesh)
    mixers = {"exchange": mixing.exchange(graph, mesh), "gather": mixing.dense(graph)}
    if len(shifts_of(graph.mixing_matrix)) <= options.most_shifts:
        mixers["shifts"] = mixing.shifts(graph)
    shardings = sharding.agent_shardings(params, mesh)
    programs = {
        name: jax.jit(mix, out_shardings=shardings).lower(params).compile()
        for name, mix in mixers.items()
    }
    times = alternate(
        {name: _call(program, params) for name, program in programs.items()}, turns=options.turns
    )
    megabytes = {
        name: max(bytes_received(program.as_text(), mesh.size)) / 1e6
        for name, program in programs.items()
    }
    return {
        "agents": graph.num_agents,
        **{f"{name}_ms": 1e3 * median(times[name]) for name in ("exchange", "gather")},
        "shifts_ms": 1e3 * median(times["shifts"]) if "shifts" in times else "",
        "ratio": ratio(times, "exchange", "gather"),
        **{f"{name}_MB": megabytes.get(name, "") for name in ("exchange", "gather", "shifts")},
    }


def _call(program: jax.stages.Compiled, params: cdjax.Params) -> Callable[[], Any]:
    # One call at a time: virtual devices share a few threads, and two programs that occupy all of
    # them while they wait for each other's messages never end.
    return lambda: jax.block_until_ready(program(params))


if __name__ == "__main__":
    main(tyro.cli(Options))
