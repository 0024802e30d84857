r"""Directed graphs and spanning trees.

An edge from l to j of a directed graph says that l sends to j, so it is the weight
:math:`P_{jl}`, of row j (the receiver) and column l (the sender).

Nedić, Olshevsky, Shi, *Achieving Geometric Convergence for Distributed Optimization over
Time-Varying Graphs*, SIAM Journal on Optimization 2017, arXiv:1607.03218.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import networkx as nx
import numpy as np
import numpy.typing as npt

from cdjax._checks import check_choice, check_topology, real_array
from cdjax.topology._builders import from_graph
from cdjax.topology._topology import TOLERANCE, Topology

Stochasticity: TypeAlias = Literal["row", "column", "doubly", "none"]
DirectedWeights: TypeAlias = Literal["column", "row"]


def from_digraph(
    graph: nx.DiGraph,
    weights: DirectedWeights = "column",
    *,
    name: str | None = None,
    validate: bool = True,
) -> Topology:
    r"""A topology from a directed networkx graph.

    .. math::
        \text{column:}\; P_{jl} = 1 / (1 + d^{\text{out}}_l), \qquad
        \text{row:}\; P_{jl} = 1 / (1 + d^{\text{in}}_j)

    where l sends to j, and for l = j.
    With columns that sum to one every sender deals out what it has in equal parts, and the sum over
    agents stays: for :func:`cdjax.push_sum` and :func:`cdjax.push_diging`. With rows that sum to
    one every receiver takes the mean of what it hears: agents that mix so agree, but on a mean that
    weighs them by the graph.

    Args:
        graph: the nodes become the agents 0..N-1 in the graph's own order, whatever their labels.
            Self loops and edge attributes are ignored.
        weights: ``column`` or ``row``.
        name: what tables and plots call it; by default the graph's own name.
        validate: whether the graph has to be strongly connected, so that everybody hears of
            everybody.

    Returns:
        A topology whose ``graph`` is directed. Its spectrum is that of P: complex, by modulus.

    Raises:
        ValueError: if the graph is undirected, empty, or not strongly connected.

    Example: ``directed = cdjax.topology.from_digraph(nx.cycle_graph(8, nx.DiGraph))``

    Reference: Nedić, Olshevsky & Shi (2017), Section 4, for the column weights.
    """
    if not isinstance(graph, nx.DiGraph):
        raise ValueError(
            f"graph is {'undirected' if isinstance(graph, nx.Graph) else type(graph).__name__}; "
            "give a networkx.DiGraph, or an undirected graph to from_graph"
        )
    check_choice("weights", weights, get_args(DirectedWeights))
    num_agents = graph.number_of_nodes()
    if not num_agents:
        raise ValueError("graph has no nodes; there must be at least 1 agent")
    numbers = {node: number for number, node in enumerate(graph)}
    plain = nx.empty_graph(num_agents, nx.DiGraph)
    plain.add_edges_from((numbers[a], numbers[b]) for a, b in graph.edges() if a != b)
    if validate and not nx.is_strongly_connected(plain):
        unheard = next(j for j in plain if len(nx.descendants(plain, j)) < num_agents - 1)
        raise ValueError(
            f"graph is not strongly connected: what agent {unheard} sends does not reach everybody;"
            " add edges, or pass validate=False"
        )
    matrix = np.eye(num_agents)
    senders, receivers = np.array(plain.edges, int).reshape(-1, 2).T
    matrix[receivers, senders] = 1
    matrix /= matrix.sum(axis=0 if weights == "column" else 1, keepdims=True)
    return Topology(name or graph.name or "digraph", nx.freeze(plain), matrix)


def stochasticity(matrix: npt.ArrayLike) -> Stochasticity:
    """Which sums of a mixing matrix are one, to 1e-8.

    Args:
        matrix: shape (N, N), row = receiver; of a topology ``topology.mixing_matrix``.

    Returns:
        ``row`` if agents that agree stay (:func:`cdjax.cdsgd` and other gossip), ``column`` if the
        sum over agents stays (:func:`cdjax.push_sum`), ``doubly`` if both, ``none`` if neither, or
        if an entry is negative.

    Raises:
        ValueError: if the matrix is not square.

    Example: ``assert cdjax.topology.stochasticity(np.eye(3)) == "doubly"``
    """
    matrix = real_array("matrix", matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"matrix has shape {matrix.shape}; expected (N, N) with N at least 1")
    if not matrix.min() >= -TOLERANCE:
        return "none"
    column, row = (bool(np.all(np.abs(matrix.sum(axis) - 1) <= TOLERANCE)) for axis in (0, 1))
    kinds: dict[tuple[bool, bool], Stochasticity] = {
        (True, True): "doubly",
        (True, False): "row",
        (False, True): "column",
        (False, False): "none",
    }
    return kinds[row, column]


def spanning_tree(topology: Topology, *, root: int | None = None) -> Topology:
    """A tree that joins all agents along edges of a topology, as flat as its root allows.

    Every agent is as near to the root as in the graph. By default the root is a centre of the
    graph, with which no agent is further from it than half of the tree's longest path, and one.

    Args:
        topology: a connected graph.
        root: an agent's number.

    Returns:
        The tree, with Metropolis–Hastings weights.

    Raises:
        ValueError: if the graph is directed or there is no such agent.

    Example: ``tx = cdjax.relay(optax.sgd(0.1), cdjax.topology.spanning_tree(topology))``
    """
    check_topology(topology)
    graph = topology.graph
    if graph.is_directed():
        raise ValueError(f"{topology.name} is directed; relays need links in both directions")
    if root is None:
        root = min(nx.center(graph))
    if root not in graph:
        raise ValueError(
            f"root is {root!r}, which is no agent of {topology.name}; give a number from 0 to "
            f"{topology.num_agents - 1}"
        )
    tree = nx.empty_graph(topology.num_agents)
    tree.add_edges_from(nx.bfs_edges(graph, root))
    return from_graph(tree, name=f"tree of {topology.name}")
