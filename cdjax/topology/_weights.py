"""From a graph to a mixing matrix Π: float64, symmetric unless a docstring says otherwise.

Graphs hold the agents 0..N-1 and no self loops; edge attributes are ignored.

Xiao, Boyd, *Fast Linear Iterations for Distributed Averaging*, Systems & Control Letters 2004.

Boyd, Diaconis, Xiao, *Fastest Mixing Markov Chain on a Graph*, SIAM Review 2004.

Xiao, Boyd, Lall, *A Scheme for Robust Distributed Sensor Fusion Based on Average Consensus*,
IPSN 2005.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from cdjax._checks import check_choice
from cdjax.topology._entries import Entries, in_order, sums_by_receiver
from cdjax.topology._semidefinite import MatrixInequality, disagreements, incidence, minimize
from cdjax.topology._spectrum import MOST_SOLVED, extremes

Weights: TypeAlias = str | Callable[[nx.Graph], np.ndarray]
DEFAULT = "metropolis_hastings"


def metropolis_hastings(graph: nx.Graph) -> Entries:
    r"""Weights by the larger degree of the two ends; on regular graphs they are the uniform ones.

    .. math:: \Pi_{jl} = \frac{1}{1 + \max(d_j, d_l)} \text{ on edges}, \quad
              \Pi_{jj} = 1 - \sum_{l \ne j} \Pi_{jl}

    An agent only needs to know its neighbours' degrees. A path of three agents has the matrix
    ``[[2, 1, 0], [1, 1, 1], [0, 1, 2]] / 3``.

    Reference: Xiao, Boyd & Lall (2005), "Metropolis weights".
    """
    j, k = links_of_graph(graph)
    degrees = np.bincount(j, minlength=len(graph))
    return with_diagonal(len(graph), j, k, 1 / (1 + np.maximum(degrees[j], degrees[k])))


def uniform(graph: nx.Graph) -> Entries:
    r"""Every agent weighs its neighbours and itself equally, :math:`\Pi_{jl} = 1 / (1 + d_j)`.

    Rows sum to one; symmetric, and so a valid mixing matrix, on regular graphs only.

    Reference: Jiang et al. (2017), Section 5, "uniform agent interaction matrix".
    """
    j, k = links_of_graph(graph)
    return with_diagonal(len(graph), j, k, 1 / (1 + np.bincount(j, minlength=len(graph))[j]))


def max_degree(graph: nx.Graph) -> Entries:
    r"""The same weight on all edges, :math:`\Pi = I - L / (1 + d_{\max})`, L the graph Laplacian.

    Reference: Xiao & Boyd (2004), Section 4.1; with :math:`1 / d_{\max}` in place of
    :math:`1 / (1 + d_{\max})`, regular bipartite graphs would have :math:`\lambda_N = -1`.
    """
    return _same_on_all_edges(graph, lambda most: 1 / (1 + most))


def laplacian(graph: nx.Graph) -> Entries:
    r"""The same weight on all edges, chosen so that disagreement contracts fastest.

    .. math:: \Pi = I - \frac{2}{\lambda_1(L) + \lambda_{N-1}(L)} L

    with the largest and the smallest non-zero eigenvalue of the Laplacian L of a connected graph.
    Then :math:`\lambda_N = -\lambda_2`; diagonal entries may be negative.

    Reference: Xiao & Boyd (2004), Section 4.1.
    """
    if not graph.number_of_edges():
        return with_diagonal(len(graph), *links_of_graph(graph), np.zeros(0))
    if len(graph) <= MOST_SOLVED:
        whole = np.eye(len(graph)) - np.asarray(_same_on_all_edges(graph, lambda most: 1.0))
        spectrum = np.linalg.eigvalsh(whole)  # of L, ascending from 0
        return _same_on_all_edges(graph, lambda most: 2 / (spectrum[-1] + spectrum[1]))
    # With this weight, Π's eigenvalues lie in [0, 1].
    ends = extremes(_same_on_all_edges(graph, lambda most: 1 / (2 * most)))
    return _same_on_all_edges(graph, lambda most: 1 / (most * (2 - ends.second - ends.smallest)))


def lazy(graph: nx.Graph) -> Entries:
    r"""The mean of I and Metropolis–Hastings, :math:`(I + \Pi) / 2`: no negative eigenvalue."""
    plain = metropolis_hastings(graph).off_diagonal
    return with_diagonal(len(graph), plain.receivers, plain.senders, plain.weights / 2)


def fastest(graph: nx.Graph) -> Entries:
    r"""The symmetric weights, none of them negative, by which disagreement contracts fastest.

    .. math:: \min_\Pi \; \| \Pi - 11^\top / N \|_2 \quad \text{with } \Pi = \Pi^\top, \;
              \Pi 1 = 1, \; \Pi \ge 0, \; \Pi_{jl} = 0 \text{ off the edges}

    A semidefinite program, solved to 1e-9 by an interior-point method in time that grows with the
    cube of the number of edges: 2 s for 200 edges, minutes for 2,000. On a path all edges get one
    half. Agents may give themselves no weight.

    Reference: Boyd, Diaconis & Xiao (2004), problem (6) (number not verified).
    """
    return _fastest(graph, nonnegative=True)


def fastest_signed(graph: nx.Graph) -> Entries:
    r"""The symmetric weights by which disagreement contracts fastest, negative ones allowed.

    :func:`fastest` without :math:`\Pi \ge 0`; on a star it contracts by (N − 1) / (N + 1) in place
    of 1 − 1 / (N − 1). Where all edges are alike (star, ring, hypercube), this is
    :func:`laplacian`.

    Reference: Xiao & Boyd (2004), "symmetric FDLA problem".
    """
    return _fastest(graph, nonnegative=False)


def _fastest(graph: nx.Graph, *, nonnegative: bool) -> Entries:
    """In an orthonormal basis of disagreements: −sI ≺ I − B diag(w) Bᵀ ≺ sI, of least s."""
    num_agents, num_edges = graph.number_of_nodes(), graph.number_of_edges()
    if not num_edges:
        return with_diagonal(num_agents, *links_of_graph(graph), np.zeros(0))
    edges = incidence(graph)
    basis = disagreements(num_agents)
    size = num_agents - 1
    of_edges = np.vstack([np.eye(num_edges), np.zeros((size, num_edges))])
    of_bound = np.concatenate([np.zeros(num_edges), np.ones(size)])[:, None]
    ends = np.abs(edges)
    slopes = np.hstack(
        [np.vstack([-np.eye(num_edges), ends]), np.zeros((num_edges + num_agents, 1))]
    )
    limits = np.concatenate([np.zeros(num_edges), np.ones(num_agents)])
    # Metropolis–Hastings, for which all these constraints are strict; 1 bounds its eigenvalues.
    start = np.append(1 / (1 + (ends.sum(axis=1, keepdims=True) * ends).max(axis=0)), 1.1)
    solution = minimize(
        np.append(np.zeros(num_edges), 1.0),
        start,
        columns=np.hstack([basis.T @ edges, np.eye(size)]),
        inequalities=[
            MatrixInequality(-np.eye(size), np.hstack([of_edges, of_bound])),
            MatrixInequality(np.eye(size), np.hstack([-of_edges, of_bound])),
        ],
        slopes=slopes if nonnegative else slopes[:0],
        limits=limits if nonnegative else limits[:0],
    )
    first, second = np.array(graph.edges, int).T
    receivers, senders = np.append(first, second), np.append(second, first)
    order = np.lexsort((senders, receivers))
    both_ways = np.tile(solution[:-1], 2)
    return with_diagonal(num_agents, receivers[order], senders[order], both_ways[order])


WEIGHTS: Mapping[str, Callable[[nx.Graph], Entries]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (
            metropolis_hastings, uniform, max_degree, laplacian, lazy, fastest, fastest_signed
        )
    }
)  # fmt: skip


def links_of_graph(
    graph: nx.Graph,
) -> tuple[Int[np.ndarray, " links"], Int[np.ndarray, " links"]]:
    """The ends of the edges of a graph on 0..N-1, each edge both ways, in the order of entries."""
    ends = np.fromiter(itertools.chain.from_iterable(graph.edges()), np.int64)
    j, k = ends[0::2], ends[1::2]
    codes = np.sort(np.concatenate([j * len(graph) + k, k * len(graph) + j]))
    return codes // len(graph), codes % len(graph)


def with_diagonal(
    num_agents: int,
    receivers: Int[np.ndarray, " links"],
    senders: Int[np.ndarray, " links"],
    weights: Float[np.ndarray, " links"],
) -> Entries:
    """The matrix with these weights between agents, in order, and rows that sum to one."""
    agents = np.arange(num_agents)
    own = 1 - sums_by_receiver(num_agents, receivers, weights)
    receivers, senders = np.append(receivers, agents), np.append(senders, agents)
    return in_order(num_agents, receivers, senders, np.append(weights, own))


def weight_function(weights: Weights) -> Callable[[nx.Graph], np.ndarray | Entries]:
    """The function that ``weights`` names, or ``weights`` itself."""
    if callable(weights):
        return weights
    if not isinstance(weights, str):
        remedy = "give a name or a function, or give your matrix to from_matrix"
        raise ValueError(f"weights is a {type(weights).__name__}; {remedy}")
    check_choice("weights", weights, WEIGHTS)
    return WEIGHTS[weights]


def _same_on_all_edges(graph: nx.Graph, weight_of: Callable[[int], float]) -> Entries:
    """I − wL, with the weight w by the largest degree."""
    j, k = links_of_graph(graph)
    most = int(np.bincount(j, minlength=len(graph)).max())
    return with_diagonal(len(graph), j, k, np.full(len(j), weight_of(most)))
