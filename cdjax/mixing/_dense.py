"""Mixing by one product with Π: the idea in a line, and the oracle for every faster plan."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Int

from cdjax._checks import check_stacked, check_topology
from cdjax._trees import map_floats
from cdjax._types import Mixer, Params
from cdjax.topology import Topology


def dense(topology: Topology) -> Mixer:
    r"""A mixer that multiplies every leaf by the whole mixing matrix.

    .. math:: \text{mixed}^j = \sum_l \Pi_{jl} \, x^l

    Row j is the receiver, column l the sender. It takes :math:`2 N^2` operations per parameter,
    whatever the graph; for sparse graphs see :func:`neighbors`.

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

    def mix_leaf(x: Array) -> Array:
        weights = jnp.asarray(topology.mixing_matrix, x.dtype)
        # "highest" keeps GPUs and TPUs from rounding the weights.
        return jnp.einsum("jl,l...->j...", weights, x, precision="highest")

    return leafwise(topology.num_agents, mix_leaf)


def leafwise(num_agents: int, mix_leaf: Callable[[Array], Array]) -> Mixer:
    """The fixed mixer of stacked trees that mixes each floating leaf, widened, by ``mix_leaf``."""

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        del step
        check_stacked(tree, num_agents)
        return map_floats(mix_leaf, tree)

    return mix
