"""Mixing by one product with Π: the idea in a line, and the oracle for every faster plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from cdjax._checks import check_stacked
from cdjax._types import Mixer, Params
from cdjax.topology import Topology

if TYPE_CHECKING:
    from jaxtyping import Array, Int


def dense(topology: Topology) -> Mixer:
    r"""A mixer that multiplies every leaf by the whole mixing matrix.

    .. math:: \text{mixed}^j = \sum_l \Pi_{jl} \, x^l

    Row j is the receiver, column l the sender. Leaves that are not floating point (counters) pass
    unchanged.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).

    Returns:
        A mixer for stacked trees with N agents. It raises ValueError, naming the leaf's path, for a
        leaf with another leading size.

    Example::

        mix = cdjax.mixing.dense(cdjax.topology.ring(8))
        mixed = mix(params)

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        del step
        check_stacked(tree, topology.num_agents)

        def mix_leaf(x: Array) -> Array:
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x
            # At least float32 even for bfloat16 params: the rows of a rounded Π no longer sum to
            # one and the mean drifts. "highest" keeps GPUs and TPUs from rounding it themselves.
            weights = jnp.asarray(topology.mixing_matrix, jnp.promote_types(x.dtype, jnp.float32))
            mixed = jnp.einsum("jl,l...->j...", weights, x, precision="highest")
            return mixed.astype(x.dtype)

        return jax.tree.map(mix_leaf, tree)

    return mix
