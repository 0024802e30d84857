"""Topologies from a networkx graph, a matrix or a file, and from a larger topology."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import networkx as nx
import numpy as np
import numpy.typing as npt

from cdjax._checks import check_num_agents, check_topology, real_array
from cdjax.topology._assumptions import check_assumption_2, components_of
from cdjax.topology._topology import Topology
from cdjax.topology._weights import DEFAULT, Weights, weight_function


def from_graph(
    graph: nx.Graph, weights: Weights = DEFAULT, *, name: str | None = None, validate: bool = True
) -> Topology:
    """A topology from any undirected networkx graph.

    Args:
        graph: the nodes become the agents 0..N-1 in the graph's own order, whatever their labels.
            Self loops and edge attributes are ignored, and parallel edges count once; for your own
            weights see :func:`from_matrix`.
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
    plain = nx.empty_graph(graph.number_of_nodes())
    numbers = {node: number for number, node in enumerate(graph)}
    plain.add_edges_from((numbers[a], numbers[b]) for a, b in graph.edges() if a != b)
    # Frozen before the weights: a weight function that adds an edge would void the checks.
    matrix = weight_function(weights)(nx.freeze(plain))
    return _checked(name or graph.name or "graph", plain, matrix, validate=validate)


def from_matrix(matrix: npt.ArrayLike, *, name: str = "matrix", validate: bool = True) -> Topology:
    """A topology from a mixing matrix; its non-zero entries are the edges.

    Args:
        matrix: Π, shape (N, N); ``matrix[j, l]`` is the weight that agent j gives to agent l.
        name: what tables and plots call it.
        validate: whether Assumption 2 is checked, to 1e-8. Without it any square finite matrix
            passes, and two agents share an edge if either weighs the other.

    Raises:
        ValueError: if Π is not square and finite, or fails Assumption 2; the error says how.

    Example: ``topology = cdjax.topology.from_matrix([[0.7, 0.3], [0.3, 0.7]])``

    Reference: Jiang et al. (2017), Assumption 2.
    """
    matrix = real_array("matrix", matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"matrix has shape {matrix.shape}; expected (N, N) with N at least 1")
    graph = nx.empty_graph(len(matrix))
    linked = (matrix != 0) | (matrix.T != 0)
    graph.add_edges_from(np.argwhere(np.triu(linked, k=1)).tolist())
    return _checked(name, nx.freeze(graph), matrix, validate=validate)


def from_edge_list(
    path: str | os.PathLike[str], weights: Weights = DEFAULT, *, num_agents: int | None = None
) -> Topology:
    """A topology from a text file with one edge, two agent numbers, per line.

    Args:
        path: of the file, which gives the topology its name. ``#`` starts a comment; agents are
            numbered from 0 without gaps.
        weights: as for :func:`from_graph`.
        num_agents: N, checked against the file; by default the number of agents in the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not an edge, an agent has no edge, or Π fails Assumption 2.

    Example::

        np.savetxt("triangle.edges", [[0, 1], [1, 2], [2, 0]], fmt="%d")
        topology = cdjax.topology.from_edge_list("triangle.edges")
    """
    if num_agents is not None:
        check_num_agents(num_agents)
    edges = list(_read_edges(path))
    if not edges:
        raise ValueError(f"{path} has no edges; write two agent numbers per line, as in '0 1'")
    agents = {agent for edge in edges for agent in edge}
    count = max(agents) + 1 if num_agents is None else num_agents
    expected = f"number {count} agents 0 to {count - 1}"
    unknown = next((agent for agent in sorted(agents) if not 0 <= agent < count), None)
    if unknown is not None:
        raise ValueError(f"{path} names agent {unknown}; {expected}")
    missing = next((agent for agent in range(count) if agent not in agents), None)
    if missing is not None:
        raise ValueError(f"{path} has no edge of agent {missing}; {expected}, each with an edge")
    graph = nx.empty_graph(count)
    graph.add_edges_from(edges)
    return from_graph(graph, weights, name=os.path.basename(path))


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
    unknown = [agent for agent in agents if agent not in range(num_agents)]
    if unknown:
        raise ValueError(
            f"agents names {unknown[0]!r}, which is no agent of {topology.name}; "
            f"give numbers from 0 to {num_agents - 1}"
        )
    gone = sorted(map(int, {*agents}))
    if not gone:
        return topology
    remaining = [agent for agent in range(num_agents) if agent not in gone]
    if not remaining:
        raise ValueError(f"agents names all {num_agents} agents; leave at least 1")
    subgraph = topology.graph.subgraph(remaining)
    # from_matrix would find this too, but in the new numbers, which the caller does not know.
    if not nx.is_connected(subgraph):
        raise ValueError(
            f"without agents {gone} the graph falls apart into {components_of(subgraph)}; "
            "leave an agent that joins them"
        )
    matrix = topology.mixing_matrix[np.ix_(remaining, remaining)]
    matrix += np.diag(1 - matrix.sum(axis=1))
    return from_matrix(matrix, name=f"{topology.name} without {gone}")


# nx.read_edgelist skips lines of one word and cannot say which line is wrong.
def _read_edges(path: str | os.PathLike[str]) -> Iterator[tuple[int, int]]:
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            words = line.partition("#")[0].split()
            try:
                if words:
                    first, second = map(int, words)
                    yield first, second
            except ValueError:
                raise ValueError(
                    f"{path}, line {number} is {line.strip()[:40]!r}; expected two agent numbers"
                ) from None


def _checked(name: str, graph: nx.Graph, matrix: npt.ArrayLike, *, validate: bool) -> Topology:
    num_agents = graph.number_of_nodes()
    matrix = real_array("mixing matrix", matrix)
    if matrix.shape != (num_agents, num_agents):
        raise ValueError(f"weights gave shape {matrix.shape}; expected {(num_agents, num_agents)}")
    if not np.isfinite(matrix).all():
        j, k = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(f"mixing matrix: Π[{j}, {k}] is {matrix[j, k]}; every weight is finite")
    topology = Topology(name, graph, matrix)
    if validate:
        check_assumption_2(topology)
    return topology
