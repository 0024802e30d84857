"""The time of a mixing step by graph, N and mixer: ``python -m benchmarks.mixing``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro

import cdjax
from benchmarks._timing import alternate, ratio, report
from cdjax import mixing, topology
from cdjax.mixing._shifts import shifts_of

PLANS = ("dense", "shifts", "neighbors")


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
    mixers = {"neighbors": mixing.neighbors(graph)}
    if graph.num_agents <= options.most_agents_dense:
        mixers["dense"] = mixing.dense(graph)
    if len(shifts_of(graph.mixing_matrix)) <= options.most_shifts:
        mixers["shifts"] = mixing.shifts(graph)
    shape = (graph.num_agents, options.size // graph.num_agents)
    params = jax.random.normal(jax.random.key(0), shape)
    steps = {"axpy": optax.sgd(0.01)} | {n: cdjax.cdsgd(0.01, mix) for n, mix in mixers.items()}
    programs = {name: _program(tx, params, options.fresh) for name, tx in steps.items()}
    times = alternate(programs, turns=options.turns)
    ratios = {name: ratio(times, name, "axpy") if name in times else "" for name in PLANS}
    return {
        "agents": graph.num_agents,
        "axpy_ms": 1e3 * median(times["axpy"]),
        **ratios,
        "auto": mixing.choose(graph),
    }


def _program(
    tx: optax.GradientTransformation, params: jax.Array, fresh: bool
) -> Callable[[], jax.Array]:
    def step(params: jax.Array, grads: jax.Array) -> jax.Array:
        updates, _ = tx.update(grads, tx.init(params), params)
        return optax.apply_updates(params, updates)  # pyright: ignore[reportReturnType]

    step = jax.jit(step, donate_argnums=() if fresh else 1)
    grads = jnp.ones_like(params)

    def program() -> jax.Array:
        nonlocal grads
        result = step(params, grads)
        if not fresh:
            grads = result  # the step donated the gradient's memory to its result
        return result

    return program


if __name__ == "__main__":
    main(tyro.cli(Options))
