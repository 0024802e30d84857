"""The timed mixing step: Πx − αg by every plan that suits a graph, and x − αg."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

import cdjax
from cdjax import mixing, topology
from cdjax.mixing._shifts import shifts_of

PLANS = ("dense", "shifts", "neighbors")


def plans_of(
    graph: topology.Topology, most_agents_dense: int, *, most_shifts: int
) -> dict[str, cdjax.Mixer]:
    """The mixers of a graph by plan, without those that it is too large or too irregular for."""
    mixers = {"neighbors": mixing.neighbors(graph)}
    if graph.num_agents <= most_agents_dense:
        mixers["dense"] = mixing.dense(graph)
    if len(shifts_of(graph.mixing_matrix)) <= most_shifts:
        mixers["shifts"] = mixing.shifts(graph)
    return mixers


def mixing_programs(
    mixers: Mapping[str, cdjax.Mixer], shape: tuple[int, int], *, fresh: bool = False
) -> dict[str, Callable[[], jax.Array]]:
    """A program per mixer that takes a CDSGD step, and ``axpy``, which takes one of plain SGD.

    All read the same parameters. Each writes its result to its gradient's memory, which is what the
    next call reads; with ``fresh`` it writes to fresh memory.
    """
    params = jax.random.normal(jax.random.key(0), shape)
    steps = {"axpy": optax.sgd(0.01)} | {n: cdjax.cdsgd(0.01, mix) for n, mix in mixers.items()}
    return {name: _program(tx, params, fresh) for name, tx in steps.items()}


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
