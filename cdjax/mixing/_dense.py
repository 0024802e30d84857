"""Mixing by one product with Π: the idea in a line, and the oracle for every faster plan."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from cdjax._checks import check_stacked, check_topology
from cdjax._types import Mixer, Params
from cdjax.topology import Topology

MixLeaf: TypeAlias = Callable[[jax.Array], jax.Array]


def dense(topology: Topology) -> Mixer:
    r"""A mixer that multiplies every leaf by the whole mixing matrix.

    .. math:: \text{mixed}^j = \sum_l \Pi_{jl} \, x^l

    Row j is the receiver, column l the sender. It takes :math:`2 N^2` operations a parameter,
    whatever the graph; for sparse ones see :func:`neighbors`.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).

    Returns:
        A mixer for stacked trees with N agents; see :func:`leafwise` for what all plans share.

    Example::

        mix = cdjax.mixing.dense(cdjax.topology.ring(8))
        mixed = mix(params)

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """
    check_topology(topology)

    def mix_leaf(x: Array) -> Array:
        weights = jnp.asarray(topology.mixing_matrix, x.dtype)
        # "highest" keeps GPUs and TPUs from rounding the weights.
        return jnp.einsum("jl,l...->j...", weights, x, precision="highest")

    return leafwise(topology.num_agents, mix_leaf)


def leafwise(num_agents: int, mix_leaf: MixLeaf) -> Mixer:
    """The mixer that a plan for one array makes, and what all plans share.

    It mixes leaf by leaf, without a copy of the whole tree. Leaves that are not floating point
    (counters) pass unchanged. ``step`` is accepted and not read.

    Args:
        num_agents: N.
        mix_leaf: mixes an array of shape (N, ...) of float32, float64 or their complex kin.

    Returns:
        A mixer for stacked trees. It raises ValueError, naming the leaf's path, for a leaf with
        another leading size than N.
    """

    def mix_any(x: Array | np.ndarray) -> Array | np.ndarray:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        # At least float32 even for bfloat16 params: the rows of a rounded Π no longer sum to one
        # and the mean drifts.
        wide = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
        return mix_leaf(wide).astype(x.dtype)

    def mix(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        del step
        check_stacked(tree, num_agents)
        return jax.tree.map(mix_any, tree)

    return mix
