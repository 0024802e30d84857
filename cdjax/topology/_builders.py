"""Topologies from a networkx graph, a matrix or a file, and from a larger topology."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from cdjax._checks import check_num_agents, check_topology, real_array
from cdjax.topology._assumptions import FLOAT32_TOLERANCE, check_assumption_2, components_of
from cdjax.topology._entries import Entries, codes_of, entries_of, in_order, largest_asymmetry
from cdjax.topology._files import read_graph
from cdjax.topology._topology import Topology, agent_name
from cdjax.topology._weights import DEFAULT, Weights, weight_function, with_diagonal


def from_graph(
    graph: nx.Graph, weights: Weights = DEFAULT, *, name: str | None = None, validate: bool = True
) -> Topology:
    """A topology from any undirected networkx graph.

    Args:
        graph: the nodes become the agents 0..N-1. Nodes that are these numbers keep them; others
            are numbered in the graph's own order and stay known by ``topology.labels``. Self loops
            and edge attributes are ignored, and parallel edges count once; for your own weights see
            :func:`from_matrix`.
        weights: ``metropolis_hastings``, ``uniform``, ``max_degree``, ``laplacian``, ``lazy``, or a
            function from the numbered graph to a matrix of shape (N, N).
        name: what tables and plots call it; by default the graph's own name.
        validate: whether Assumption 2 is checked, to 1e-8.

    Raises:
        ValueError: if the graph is directed or empty, or Π fails Assumption 2; the error says how.

    Example: ``topology = cdjax.topology.from_graph(nx.karate_club_graph())``

    Reference: Jiang et al. (2017), Assumption 2.
    """
    if not isinstance(graph, nx.Graph):
        raise ValueError(f"graph is of type {type(graph).__name__}; give a networkx.Graph")
    if graph.is_directed():
        raise ValueError("graph is directed; give graph.to_undirected(), or Π to from_matrix")
    if not graph.number_of_nodes():
        raise ValueError("graph has no nodes; there must be at least 1 agent")
    return weighed(graph, weights, name=name or graph.name or "graph", validate=validate)


def weighed(
    graph: nx.Graph,
    weights: Weights,
    *,
    name: str,
    validate: bool = True,
    laplacian: npt.ArrayLike | None = None,
) -> Topology:
    """A topology from a graph that has been checked; its Laplacian's eigenvalues, if known."""
    plain = nx.empty_graph(graph.number_of_nodes())
    labels = tuple(plain) if all(node in plain for node in graph) else tuple(graph)
    numbers = {label: number for number, label in enumerate(labels)}
    plain.add_edges_from((numbers[a], numbers[b]) for a, b in graph.edges() if a != b)
    # Frozen before the weights: a weight function that adds an edge would void the checks.
    matrix = weight_function(weights)(nx.freeze(plain))
    spectrum = None if laplacian is None else np.asarray(laplacian, np.float64)
    entries = _entries("weights gave", matrix, len(plain), validate=validate)
    return _checked(Topology(name, plain, entries, labels, spectrum), validate=validate)


def from_matrix(matrix: Any, *, name: str = "matrix", validate: bool = True) -> Topology:
    """A topology from a mixing matrix; its non-zero entries are the edges.

    Args:
        matrix: Π, shape (N, N), an array or one of SciPy's sparse ones; ``matrix[j, l]`` is the
            weight that agent j gives to agent l. In float32 it may miss Assumption 2 by as much as
            its numbers are rounded, and its diagonal makes up for that.
        name: what tables and plots call it.
        validate: whether Assumption 2 is checked, to 1e-8. Without it any square finite matrix
            passes, and two agents share an edge if either weighs the other.

    Raises:
        ValueError: if Π is not square and finite, or fails Assumption 2; the error says how.

    Example: ``topology = cdjax.topology.from_matrix([[0.7, 0.3], [0.3, 0.7]])``

    Reference: Jiang et al. (2017), Assumption 2.
    """
    entries = _entries("matrix has", matrix, None, validate=validate)
    return _checked(Topology(name, _graph_of(entries), entries), validate=validate)


def from_edge_list(
    path: str | os.PathLike[str], weights: Weights = DEFAULT, *, num_agents: int | None = None
) -> Topology:
    """A topology from a file with one edge, two agents, per line, or in GraphML or GML.

    Args:
        path: of the file, which gives the topology its name. Files named ``.graphml`` or ``.gml``
            are read by networkx. In all others the two agents of a line stand between spaces, tabs,
            commas or semicolons, ``#`` or ``%`` starts a comment, and a first line of one number is
            N. Agents are numbered from 0 without gaps, or have names, which become
            ``topology.labels``. Text may be UTF-8 or UTF-16, and compressed by gzip. Edges'
            weights are not read: lines that hold more than two agents are refused.
        weights: as for :func:`from_graph`.
        num_agents: N, checked against the file; by default the number of agents in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not an edge, an agent has no edge, the file is of another kind, or
            Π fails Assumption 2.

    Example::

        np.savetxt("triangle.edges", [[0, 1], [1, 2], [2, 0]], fmt="%d")
        topology = cdjax.topology.from_edge_list("triangle.edges")
    """
    if num_agents is not None:
        check_num_agents(num_agents)
    return weighed(read_graph(path, num_agents), weights, name=os.path.basename(path))


def without_agents(topology: Topology, agents: Sequence[int]) -> Topology:
    r"""The topology among the agents that remain when some leave.

    .. math:: \Pi'_{jl} = \Pi_{jl} \;\; (j \ne l), \qquad
              \Pi'_{jj} = \Pi_{jj} + \sum_{l \, \text{gone}} \Pi_{jl}

    Each agent gives the weight of its lost neighbours back to itself. So Π' is symmetric, and its
    rows and columns sum to one, as those of Π do.

    Args:
        topology: the whole topology.
        agents: the numbers of the agents that leave, in any order.

    Returns:
        The topology of the remaining agents, numbered from 0 in their old order; ``topology``
        itself if nobody leaves.

    Raises:
        ValueError: if there is no such agent, nobody remains, or those who remain are not connected
            or fail Assumption 2.

    Example: ``path = cdjax.topology.without_agents(cdjax.topology.ring(8), [3])``
    """
    check_topology(topology)
    num_agents = topology.num_agents
    if np.ndim(agents) != 1:
        raise ValueError(f"agents is {agents!r}; give a list of agents' numbers")
    unknown = [agent for agent in agents if agent not in range(num_agents)]
    if unknown:
        last = agent_name(topology.labels, num_agents - 1)
        raise ValueError(
            f"agents names {unknown[0]!r}, which is no agent of {topology.name}; "
            f"give numbers from {agent_name(topology.labels, 0)} to {last}"
        )
    gone = sorted(map(int, {*agents}))
    if not gone:
        return topology
    remaining = np.delete(np.arange(num_agents), gone)
    if not len(remaining):
        raise ValueError(f"agents names all {num_agents} agents; leave at least 1")
    names = f"[{', '.join(str(topology.labels[agent]) for agent in gone)}]"
    subgraph = topology.graph.subgraph(remaining.tolist())
    # The checks below would find this too, but in the new numbers, which the caller does not know.
    if not nx.is_connected(subgraph):
        raise ValueError(
            f"without agents {names} the graph falls apart into "
            f"{components_of(subgraph, topology.labels)}; leave an agent that joins them"
        )
    links = topology.entries.off_diagonal
    links = links.where(np.isin(links.receivers, remaining) & np.isin(links.senders, remaining))
    receivers, senders = np.searchsorted(remaining, [links.receivers, links.senders])
    entries = with_diagonal(len(remaining), receivers, senders, links.weights)
    labels = tuple(topology.labels[agent] for agent in remaining)
    name = f"{topology.name} without {names}"
    return _checked(Topology(name, _graph_of(entries), entries, labels), validate=True)


def _entries(what: str, matrix: Any, num_agents: int | None, *, validate: bool) -> Entries:
    """The entries of a matrix of the right shape; those of a float32 one are made exact."""
    if isinstance(matrix, Entries):
        return matrix
    is_sparse = hasattr(matrix, "tocsr")
    array: Any = matrix.tocsr() if is_sparse else real_array("matrix", matrix)
    shape = array.shape
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] != (num_agents or max(shape[0], 1)):
        expected = "(N, N) with N at least 1" if num_agents is None else (num_agents, num_agents)
        raise ValueError(f"{what} shape {shape}; expected {expected}")
    if is_sparse:
        # By way of rows, which add up what was given twice for the same place.
        found = array.tocoo()
        weights = real_array("matrix", found.data)
        entries = in_order(shape[0], found.row, found.col, weights)
    else:
        entries = entries_of(array)
    is_finite = np.isfinite(entries.weights)
    if not is_finite.all():
        worst = int(np.argmin(is_finite))
        j, k = entries.receivers[worst], entries.senders[worst]
        raise ValueError(
            f"mixing matrix: Π[{j}, {k}] is {entries.weights[worst]}; every weight is finite"
        )
    is_float32 = getattr(matrix, "dtype", None) == np.float32
    return _exact(entries) if is_float32 and validate else entries


def _exact(entries: Entries) -> Entries:
    """The symmetric matrix with rows that sum to one of which these are the rounded weights.

    Weights that no rounding explains are left to the checks.
    """
    apart = np.max(np.abs(entries.row_sums() - 1))
    if max(apart, largest_asymmetry(entries)[1]) > FLOAT32_TOLERANCE:
        return entries
    links = entries.off_diagonal
    weights = (links.weights + links.at(links.senders, links.receivers)) / 2
    return with_diagonal(entries.num_agents, links.receivers, links.senders, weights)


def _graph_of(entries: Entries) -> nx.Graph:
    """The graph in which two agents share an edge if either weighs the other."""
    graph = nx.empty_graph(entries.num_agents)
    links = entries.off_diagonal
    first = np.minimum(links.receivers, links.senders)
    second = np.maximum(links.receivers, links.senders)
    codes = np.unique(codes_of(first, second, entries.num_agents))
    first, second = np.divmod(codes, entries.num_agents)
    graph.add_edges_from(zip(first.tolist(), second.tolist(), strict=True))
    return nx.freeze(graph)


def _checked(topology: Topology, *, validate: bool) -> Topology:
    if validate:
        check_assumption_2(topology)
    return topology
