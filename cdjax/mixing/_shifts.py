"""Mixing by shifts of the agent axis: Π as a sum of its wrapped diagonals."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cdjax._checks import check_topology
from cdjax._trees import along_agents
from cdjax._types import Mixer
from cdjax.mixing._dense import leafwise
from cdjax.topology import Topology

# Weights that are equal by construction differ by rounding: each row was made to sum to one.
_ROUNDING = 1e-15


def shifts(topology: Topology) -> Mixer:
    r"""A mixer that adds shifted copies of x, one for every nonzero wrapped diagonal of Π.

    .. math:: \text{mixed}^j = \sum_s \Pi_{j,\,(j+s) \bmod N} \; x^{(j+s) \bmod N}

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
    matrix, agents = topology.mixing_matrix, np.arange(topology.num_agents)
    diagonals = {
        int(shift): matrix[agents, (agents + shift) % topology.num_agents]
        for shift in shifts_of(matrix)
    }

    def mix_leaf(x: Array) -> Array:
        mixed = jnp.zeros_like(x)
        for shift, weights in diagonals.items():
            mixed += weighted(weights, jnp.roll(x, -shift, axis=0))
        return mixed

    return leafwise(topology.num_agents, mix_leaf)


def shifts_of(matrix: Float[np.ndarray, "agents agents"]) -> Int[np.ndarray, " shifts"]:
    """The s in 0..N-1 for which some agent j gives a weight to agent (j + s) mod N."""
    receivers, senders = np.nonzero(matrix)
    return np.unique((senders - receivers) % len(matrix))


def weighted(weights: Float[np.ndarray, " agents"], x: Array) -> Array:
    """``weights[j] * x[j]``; a number in place of the array where all weights are equal."""
    if np.ptp(weights) < _ROUNDING:
        return float(weights[0]) * x
    return along_agents(weights, x) * x
