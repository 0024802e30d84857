"""Mixing by weights that are arguments of the program: to differentiate by them, or to sweep them.

Xiao, Boyd, *Fast Linear Iterations for Distributed Averaging*, Systems & Control Letters 2004.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cdjax._checks import check_topology
from cdjax._trees import along_agents
from cdjax._types import Mixer
from cdjax.mixing._dense import leafwise
from cdjax.topology import Topology


def from_edge_weights(
    topology: Topology, edge_weights: Float[Array | np.ndarray, " edges"]
) -> Mixer:
    r"""A mixer with a weight per edge, which may be traced.

    .. math:: x^j \leftarrow x^j + \sum_{e = \{j, l\}} w_e (x^l - x^j), \quad
              \Pi = I - \sum_e w_e L_e

    Whatever the weights, Π is symmetric, its rows and columns sum to one, and it is zero off the
    edges: all of Assumption 2 but its spectrum. So weights can be learned, by the gradient of what
    training with them leads to.

    Args:
        topology: the graph; not its weights.
        edge_weights: w, in the order of ``topology.graph.edges``, shape (edges,); see
            :func:`edge_weights` for those that a topology has.

    Returns:
        A mixer, which may be differentiated by the weights and vmapped over them.

    Raises:
        ValueError: if there is not one weight per edge.

    Example::

        def disagreement(weights):
            mix = cdjax.mixing.from_edge_weights(topology, weights)
            return cdjax.metrics.consensus_distance(mix(params))

        slopes = jax.grad(disagreement)(cdjax.mixing.edge_weights(topology))

    Reference: Xiao & Boyd (2004), Section 3, the symmetric weights.
    """
    check_topology(topology)
    first, second = np.array(topology.graph.edges, int).reshape(-1, 2).T
    if np.shape(edge_weights) != first.shape:
        raise ValueError(
            f"edge_weights has shape {np.shape(edge_weights)}; give one number per edge of "
            f"{topology.name}, shape {first.shape}"
        )

    def mix_leaf(x: Array) -> Array:
        pulls = along_agents(edge_weights, x) * (x[second] - x[first])
        return x.at[first].add(pulls).at[second].add(-pulls)

    return leafwise(topology.num_agents, mix_leaf)


def edge_weights(topology: Topology) -> Float[Array, " edges"]:
    """The weights of a topology's edges, in the order of ``topology.graph.edges``.

    Example: ``weights = cdjax.mixing.edge_weights(cdjax.topology.star(5))``
    """
    check_topology(topology)
    first, second = np.array(topology.graph.edges, int).reshape(-1, 2).T
    return jnp.asarray(topology.mixing_matrix[first, second])
