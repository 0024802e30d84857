"""Mixing by one product with Π: the idea in a line, and the oracle for every faster plan."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from cdjax._checks import check_auto_axes, check_stacked, check_topology
from cdjax._trees import along_agents, map_floats
from cdjax._types import Mixer, Params
from cdjax.topology import Topology
from cdjax.topology._entries import Entries
from cdjax.topology._topology import TOLERANCE

# Weights that are equal by construction differ by rounding: each row was made to sum to one.
_ROUNDING = 1e-15

# Up to so many agents a sum of differences, fused with the optimizer's update, is one pass without
# temporary memory. Relative to einsum(Π, x), which lets agents in consensus drift, a CDSGD step of
# 8 agents (2 CPU cores, 8M parameters) takes 0.7 so, and 4.3 with the product of the differences;
# in a compiled loop, where pages are not new, 2.0 and 2.1. For 16 agents the loop takes 2.5, 2.0.
_MOST_SUMMED = 8


def dense(topology: Topology) -> Mixer:
    r"""A mixer that multiplies every leaf by the whole mixing matrix.

    .. math:: \text{mixed}^j = \sum_l \Pi_{jl} \, x^l = x^0 + \sum_l \Pi_{jl} (x^l - x^0)

    Row j is the receiver, column l the sender. It takes :math:`2 N^2` operations per parameter,
    whatever the graph; for sparse graphs see :func:`neighbors`. The second form, for rows that sum
    to one, is computed: with it agents that agree stay exactly as they are.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).

    Returns:
        A mixer for stacked trees with N agents. It raises ValueError, naming the leaf's path, for a
        leaf with another leading size than N. Leaves that are not floating point (counters) pass
        unchanged; ``step`` is accepted and not read.

    Example: ``mixed = cdjax.mixing.dense(cdjax.topology.ring(8))(params)``

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """
    check_topology(topology)

    matrix, sums = topology.mixing_matrix, row_sums(topology.entries)
    return leafwise(topology.num_agents, lambda x: product(matrix, sums, x))


def product(
    matrix: Float[Array | np.ndarray, "agents agents"],
    sums: Float[np.ndarray, " agents"],
    x: Shaped[Array, "agents ..."],
) -> Shaped[Array, "agents ..."]:
    """A matrix with these row sums times x, and exactly x in consensus where the sums are one.

    Rounded to float32 a row does not sum to one: three times 1/3 is 1 + 3e-8. Times x itself it
    would let agents that agree grow by as much in every step, 1/(1 − μ) times as much with momentum
    μ: 10 % in 30,000 steps of CDMSGD with μ = 0.99. The rounded weights therefore multiply
    differences, here those to the first agent, which are zeros in consensus.
    """
    return weighted(sums, x[:1]) + pulls_to_others(matrix, x)


def pulls_to_others(
    rows: Float[Array | np.ndarray, "rows agents"], x: Shaped[Array, "agents ..."]
) -> Shaped[Array, "rows ..."]:
    """Sums of differences to the first agent, ``sum_l rows[r, l] (x[l] - x[0])``."""
    weights, apart = jnp.asarray(rows, x.dtype), x - x[:1]
    if len(x) <= _MOST_SUMMED:
        terms = [along_agents(w, x) * apart[j : j + 1] for j, w in enumerate(weights.T)]
        return functools.reduce(jnp.add, terms)
    # Blocks of columns would spare the memory for all differences, but XLA:CPU runs a loop's small
    # operations on one core: for 16 and 64 agents it takes 3.0 and 2.4 there, and this 2.0 and 1.6.
    # "highest" keeps GPUs and TPUs from rounding the weights.
    return jnp.einsum("jl,l...->j...", weights, apart, precision="highest")


def row_sums(entries: Entries) -> Float[np.ndarray, " agents"]:
    """What an agent's own value counts beside differences to it: 1, unless nobody checked Π."""
    sums = entries.row_sums()
    return np.where(np.abs(sums - 1) <= TOLERANCE, 1.0, sums)


def weighted(weights: Float[np.ndarray, " agents"], x: Array) -> Array:
    """``weights[j] * x[j]``; a number in place of the array where all weights are equal."""
    if np.ptp(weights) < _ROUNDING:
        return x if weights[0] == 1 else float(weights[0]) * x
    return along_agents(weights, x) * x


def leafwise(num_agents: int, mix_leaf: Callable[[Array], Array]) -> Mixer:
    """The fixed mixer of stacked trees that mixes each floating leaf, widened, by ``mix_leaf``."""

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        del step
        check_stacked(tree, num_agents)
        check_auto_axes(tree)
        return map_floats(mix_leaf, tree)

    return mix
