"""From a graph to a mixing matrix Π: float64, symmetric unless a docstring says otherwise.

Xiao, Boyd, *Fast Linear Iterations for Distributed Averaging*, Systems & Control Letters 2004.

Xiao, Boyd, Lall, *A Scheme for Robust Distributed Sensor Fusion Based on Average Consensus*,
IPSN 2005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


def metropolis_hastings(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""Weights by the larger degree of both ends; on regular graphs the uniform ones.

    .. math:: \Pi_{jl} = \frac{1}{1 + \max(d_j, d_l)} \text{ on edges}, \quad
              \Pi_{jj} = 1 - \sum_{l \ne j} \Pi_{jl}

    Args:
        graph: an undirected graph on the agents 0..N-1.

    Returns:
        The mixing matrix, shape (N, N). Agents need their neighbours' degrees only.

    Reference: Xiao, Boyd & Lall (2005), eq. 13.
    """
    adjacency = _adjacency(graph)
    degrees = adjacency.sum(axis=1)
    return _with_diagonal(adjacency / (1 + np.maximum(degrees[:, None], degrees[None, :])))


def uniform(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""Every agent weighs its neighbours and itself alike, :math:`\Pi_{jl} = 1 / (1 + d_j)`.

    Symmetric, and so a valid mixing matrix, on regular graphs only.

    Args:
        graph: an undirected graph on the agents 0..N-1.

    Returns:
        The mixing matrix, shape (N, N); its rows sum to one.

    Reference: Jiang et al. (2017), Section 5, "uniform agent interaction matrix".
    """
    adjacency = _adjacency(graph)
    return _with_diagonal(adjacency / (1 + adjacency.sum(axis=1, keepdims=True)))


def max_degree(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""One weight for all edges, :math:`\Pi = I - L / (1 + d_{\max})`, L the graph Laplacian.

    Args:
        graph: an undirected graph on the agents 0..N-1.

    Returns:
        The mixing matrix, shape (N, N).

    Reference: Xiao & Boyd (2004), Section 4.1.
    """
    adjacency = _adjacency(graph)
    return _with_diagonal(adjacency / (1 + adjacency.sum(axis=1).max()))


def laplacian(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""The one weight for all edges that contracts disagreement fastest.

    .. math:: \Pi = I - \frac{2}{\lambda_1(L) + \lambda_{N-1}(L)} L

    with the largest and the smallest non-zero eigenvalue of the Laplacian L. Diagonal entries may
    be negative.

    Args:
        graph: an undirected connected graph on the agents 0..N-1.

    Returns:
        The mixing matrix, shape (N, N), with :math:`\lambda_N = -\lambda_2`.

    Reference: Xiao & Boyd (2004), eq. 23.
    """
    adjacency = _adjacency(graph)
    if len(adjacency) == 1:
        return np.ones((1, 1))
    spectrum = np.linalg.eigvalsh(np.diag(adjacency.sum(axis=1)) - adjacency)
    # Without an edge both eigenvalues are zero; the checks that follow name the real fault.
    return _with_diagonal(adjacency * 2 / max(spectrum[-1] + spectrum[1], 1e-300))


def lazy(graph: nx.Graph) -> Float[np.ndarray, "agents agents"]:
    r"""Half of Metropolis–Hastings, half of standing still: :math:`(I + \Pi) / 2`, no λ below 0.

    Args:
        graph: an undirected graph on the agents 0..N-1.

    Returns:
        The mixing matrix, shape (N, N), positive semidefinite.
    """
    return (np.eye(graph.number_of_nodes()) + metropolis_hastings(graph)) / 2


WEIGHTS: Mapping[str, Callable[[nx.Graph], np.ndarray]] = MappingProxyType(
    {
        "metropolis_hastings": metropolis_hastings,
        "uniform": uniform,
        "max_degree": max_degree,
        "laplacian": laplacian,
        "lazy": lazy,
    }
)


def _adjacency(graph: nx.Graph) -> np.ndarray:
    return nx.to_numpy_array(graph, nodelist=range(graph.number_of_nodes()))


def _with_diagonal(edge_weights: np.ndarray) -> np.ndarray:
    """The edge weights, and on the diagonal what is missing to rows that sum to one."""
    return edge_weights + np.diag(1 - edge_weights.sum(axis=1))
