"""Mixing by shifts of the agent axis: Π as a sum of its wrapped diagonals."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cdjax._checks import check_topology
from cdjax._types import Mixer
from cdjax.mixing._dense import leafwise, row_sums, weighted
from cdjax.topology import Topology
from cdjax.topology._entries import Entries, entries_of


def shifts(topology: Topology) -> Mixer:
    r"""A mixer that shifts x, once for every nonzero wrapped diagonal of Π.

    .. math:: \text{mixed}^j = x^j + \sum_{s \ne 0} \Pi_{j l} (x^l - x^j), \quad l = (j + s) \bmod N

    Rings, grids and exponential graphs have few such diagonals. When the agent axis is sharded over
    devices, each shift is a collective permute, so what a device receives does not grow with N; all
    other plans would gather all agents on every device. On one device :func:`neighbors` is faster.

    Args:
        topology: the graph and its mixing matrix of shape (N, N). A random graph has up to N
            diagonals, and the compiled program as many shifts.

    Returns:
        A mixer equal to ``dense(topology)`` up to rounding.

    Example: ``mix = cdjax.mixing.shifts(cdjax.topology.ring(8))``

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """
    check_topology(topology)
    entries, agents = topology.entries, np.arange(topology.num_agents)
    sums = row_sums(entries)
    diagonals = {
        int(shift): entries.at(agents, (agents + shift) % topology.num_agents)
        for shift in shifts_of(entries)
        if shift
    }

    def mix_leaf(x: Array) -> Array:
        moved = jnp.zeros_like(x)
        for shift, weights in diagonals.items():
            moved += weighted(weights, jnp.roll(x, -shift, axis=0) - x)
        return weighted(sums, x) + moved

    return leafwise(topology.num_agents, mix_leaf)


def shifts_of(
    matrix: Entries | Float[np.ndarray, "agents agents"],
) -> Int[np.ndarray, " shifts"]:
    """The s in 0..N-1 for which some agent j gives a weight to agent (j + s) mod N."""
    entries = entries_of(matrix)
    return np.unique((entries.senders - entries.receivers) % entries.num_agents)
