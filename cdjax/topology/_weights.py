"""From a graph to a mixing matrix Π: float64, symmetric unless a docstring says otherwise.

Graphs hold the agents 0..N-1 and no self loops; edge attributes are ignored.

Xiao, Boyd, *Fast Linear Iterations for Distributed Averaging*, Systems & Control Letters 2004.

Xiao, Boyd, Lall, *A Scheme for Robust Distributed Sensor Fusion Based on Average Consensus*,
IPSN 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float

from cdjax._checks import check_choice

Weights: TypeAlias = str | Callable[[nx.Graph], np.ndarray]
DEFAULT = "metropolis_hastings"


def metropolis_hastings(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""Weights by the larger degree of the two ends; on regular graphs they are the uniform ones.

    .. math:: \Pi_{jl} = \frac{1}{1 + \max(d_j, d_l)} \text{ on edges}, \quad
              \Pi_{jj} = 1 - \sum_{l \ne j} \Pi_{jl}

    An agent only needs to know its neighbours' degrees. A path of three agents has the matrix
    ``[[2, 1, 0], [1, 1, 1], [0, 1, 2]] / 3``.

    Reference: Xiao, Boyd & Lall (2005), "Metropolis weights".
    """
    adjacency = adjacency_matrix(graph)
    degrees = adjacency.sum(axis=1)
    matrix = np.zeros(adjacency.shape)
    j, k = np.nonzero(adjacency)  # edges only: at N = 10,000 a dense intermediate is 0.8 GB
    matrix[j, k] = 1 / (1 + np.maximum(degrees[j], degrees[k]))
    return _with_diagonal(matrix)


def uniform(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""Every agent weighs its neighbours and itself equally, :math:`\Pi_{jl} = 1 / (1 + d_j)`.

    Rows sum to one; symmetric, and so a valid mixing matrix, on regular graphs only.

    Reference: Jiang et al. (2017), Section 5, "uniform agent interaction matrix".
    """
    adjacency = adjacency_matrix(graph)
    return _with_diagonal(adjacency / (1 + adjacency.sum(axis=1, keepdims=True)))


def max_degree(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""The same weight on all edges, :math:`\Pi = I - L / (1 + d_{\max})`, L the graph Laplacian.

    Reference: Xiao & Boyd (2004), Section 4.1; with :math:`1 / d_{\max}` in place of
    :math:`1 / (1 + d_{\max})`, regular bipartite graphs would have :math:`\lambda_N = -1`.
    """
    adjacency = adjacency_matrix(graph)
    return _with_diagonal(adjacency / (1 + adjacency.sum(axis=1).max()))


def laplacian(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""The same weight on all edges, chosen so that disagreement contracts fastest.

    .. math:: \Pi = I - \frac{2}{\lambda_1(L) + \lambda_{N-1}(L)} L

    with the largest and the smallest non-zero eigenvalue of the Laplacian L of a connected graph.
    Then :math:`\lambda_N = -\lambda_2`; diagonal entries may be negative.

    Reference: Xiao & Boyd (2004), Section 4.1.
    """
    if not graph.number_of_edges():
        return np.eye(graph.number_of_nodes())
    adjacency = adjacency_matrix(graph)
    spectrum = np.linalg.eigvalsh(np.diag(adjacency.sum(axis=1)) - adjacency)  # ascending from 0
    return _with_diagonal(adjacency * 2 / (spectrum[-1] + spectrum[1]))


def lazy(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""The mean of I and Metropolis–Hastings, :math:`(I + \Pi) / 2`: no negative eigenvalue."""
    return (np.eye(graph.number_of_nodes()) + metropolis_hastings(graph)) / 2


WEIGHTS: Mapping[str, Callable[[nx.Graph], np.ndarray]] = MappingProxyType(
    {rule.__name__: rule for rule in (metropolis_hastings, uniform, max_degree, laplacian, lazy)}
)


def adjacency_matrix(graph: nx.Graph) -> Bool[np.ndarray, "agents agents"]:
    """Whether agents j and l share an edge."""
    agents = range(graph.number_of_nodes())
    # Networkx documents weight=None; its inferred type does not know.
    return nx.to_numpy_array(graph, agents, dtype=np.bool_, weight=None)  # pyright: ignore[reportArgumentType]


def weight_function(weights: Weights) -> Callable[[nx.Graph], np.ndarray]:
    """The function that ``weights`` names, or ``weights`` itself."""
    if callable(weights):
        return weights
    if not isinstance(weights, str):
        remedy = "give a name or a function, or give your matrix to from_matrix"
        raise ValueError(f"weights is a {type(weights).__name__}; {remedy}")
    check_choice("weights", weights, WEIGHTS)
    return WEIGHTS[weights]


def _with_diagonal(edge_weights: np.ndarray) -> np.ndarray:
    """Sets the diagonal so that every row sums to one."""
    np.fill_diagonal(edge_weights, 1 - edge_weights.sum(axis=1))
    return edge_weights
