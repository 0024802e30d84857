"""A communication graph and its mixing matrix, checked against Assumption 2 of the paper.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from cdjax._checks import check_num_agents, real_array
from cdjax.topology._weights import Weights, adjacency_matrix, weight_function

# Rounding of the decimal weights that people write into files, not of float64.
_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class Topology:
    """A communication graph with its mixing matrix Π. Build one with ``cdjax.topology``.

    Attributes:
        name: what tables and plots call it.
        graph: the graph on the agents 0..N-1, without self loops.
        mixing_matrix: Π, float64, shape (N, N), read-only. Row = receiver.
    """

    name: str
    graph: nx.Graph
    mixing_matrix: Float[np.ndarray, "agents agents"]

    def __post_init__(self) -> None:
        self.mixing_matrix.setflags(write=False)
        nx.freeze(self.graph)

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.mixing_matrix)

    @cached_property
    def eigenvalues(self) -> np.ndarray:
        """All N eigenvalues of Π, falling; complex, by modulus, where Π is not symmetric."""
        if _largest_asymmetry(self.mixing_matrix)[1] <= _TOLERANCE:
            spectrum = np.linalg.eigvalsh(self.mixing_matrix)[::-1]
        else:
            spectrum = np.linalg.eigvals(self.mixing_matrix).astype(np.complex128)
            spectrum = spectrum[np.argsort(-np.abs(spectrum), kind="stable")]
        spectrum.setflags(write=False)
        return spectrum

    @property
    def second_eigenvalue(self) -> float:
        """λ2, the second largest eigenvalue, or modulus where Π is not symmetric; 0 for N = 1."""
        if self.num_agents == 1:
            return 0.0
        second = self.eigenvalues[1]
        return float(abs(second) if np.iscomplexobj(second) else second)

    @property
    def smallest_eigenvalue(self) -> float:
        """λ_N, the smallest eigenvalue, or real part where Π is not symmetric; 1 for N = 1."""
        return float(np.min(np.real(self.eigenvalues)))

    @property
    def spectral_gap(self) -> float:
        """1 − σ, with σ = max(abs(λ2), abs(λ_N)), the contraction of a mix; 1 for N = 1."""
        return 1.0 - float(np.max(np.abs(self.eigenvalues[1:]), initial=0.0))

    def __repr__(self) -> str:
        edges = self.graph.number_of_edges()
        return f"Topology({self.name!r}, num_agents={self.num_agents}, num_edges={edges})"


def from_graph(
    graph: nx.Graph,
    weights: Weights = "metropolis_hastings",
    *,
    name: str | None = None,
    validate: bool = True,
) -> Topology:
    """A topology from any undirected networkx graph.

    Args:
        graph: the nodes become the agents 0..N-1 in the graph's own order, whatever their labels.
            Self loops and edge attributes are ignored, parallel edges count once; for weights
            of your own see :func:`from_matrix`.
        weights: ``metropolis_hastings``, ``uniform``, ``max_degree``, ``laplacian``, ``lazy``, or a
            function from the numbered graph to a matrix of shape (N, N).
        name: what tables and plots call it; by default the graph's own name.
        validate: whether Assumption 2 is checked, to 1e-8.

    Returns:
        The topology.

    Raises:
        ValueError: if the graph is directed or empty, or Π fails Assumption 2; the error says how.

    Example::

        topology = cdjax.topology.from_graph(nx.karate_club_graph())

    Reference: Jiang et al. (2017), Assumption 2.
    """
    if not isinstance(graph, nx.Graph):
        raise ValueError(f"graph is of type {type(graph).__name__}; give one of networkx")
    if graph.is_directed():
        raise ValueError("graph is directed; give graph.to_undirected(), or Π to from_matrix")
    if not graph.number_of_nodes():
        raise ValueError("graph has no nodes; there must be at least 1 agent")
    plain = nx.empty_graph(graph.number_of_nodes())
    numbers = {node: number for number, node in enumerate(graph)}
    plain.add_edges_from((numbers[a], numbers[b]) for a, b in graph.edges() if a != b)
    # Frozen here already: a weight function that adds an edge would void the checks.
    matrix = weight_function(weights)(nx.freeze(plain))
    return _topology(name or graph.name or "graph", plain, matrix, validate=validate)


def from_matrix(matrix: npt.ArrayLike, *, name: str = "matrix", validate: bool = True) -> Topology:
    """A topology from a mixing matrix; its non-zero entries are the edges.

    Args:
        matrix: Π, shape (N, N); ``matrix[j, l]`` is the weight that agent j gives to agent l.
        name: what tables and plots call it.
        validate: whether Assumption 2 is checked, to 1e-8; without, any square finite matrix
            passes, and an edge is where either direction has a weight.

    Returns:
        The topology.

    Raises:
        ValueError: if Π is not square and finite, or fails Assumption 2; the error says how.

    Example::

        topology = cdjax.topology.from_matrix([[0.7, 0.3], [0.3, 0.7]])

    Reference: Jiang et al. (2017), Assumption 2.
    """
    matrix = real_array("matrix", matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"matrix has shape {matrix.shape}; expected (N, N) with N at least 1")
    graph = nx.empty_graph(len(matrix))
    linked = (matrix != 0) | (matrix.T != 0)
    graph.add_edges_from(np.argwhere(np.triu(linked, k=1)).tolist())
    return _topology(name, graph, matrix, validate=validate)


def from_edge_list(
    path: str | os.PathLike[str],
    weights: Weights = "metropolis_hastings",
    *,
    num_agents: int | None = None,
) -> Topology:
    """A topology from a text file with an edge, two agent numbers, a line.

    Args:
        path: the file; ``#`` starts a comment. Agents are numbered from 0 without gaps.
        weights: as for :func:`from_graph`.
        num_agents: N, checked against the file; by default what the file has.

    Returns:
        The topology, named after the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is no edge, an agent has no edge, or Π fails Assumption 2.

    Example::

        topology = cdjax.topology.from_edge_list("square.edges")  # 0 1, 1 2, 2 3, 3 0: a ring of 4
    """
    if num_agents is not None:
        check_num_agents(num_agents)
    edges = list(_read_edges(path))
    if not edges:
        raise ValueError(f"{path} has no edges; write two agent numbers a line, as in '0 1'")
    agents = {agent for edge in edges for agent in edge}
    count = max(agents) + 1 if num_agents is None else num_agents
    stranger = next((agent for agent in sorted(agents) if not 0 <= agent < count), None)
    if stranger is not None:
        raise ValueError(f"{path} names agent {stranger}; number {count} agents 0 to {count - 1}")
    missing = next((agent for agent in range(count) if agent not in agents), None)
    if missing is not None:
        raise ValueError(f"{path} has no edge of agent {missing}; number {count} agents 0 to "
                         f"{count - 1}, each with an edge")  # fmt: skip
    graph = nx.empty_graph(count)
    graph.add_edges_from(edges)
    return from_graph(graph, weights, name=os.path.basename(path))


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


def _topology(name: str, graph: nx.Graph, matrix: np.ndarray, *, validate: bool) -> Topology:
    num_agents = graph.number_of_nodes()
    matrix = real_array("mixing matrix", matrix)
    if matrix.shape != (num_agents, num_agents):
        raise ValueError(f"weights gave shape {matrix.shape}; expected {(num_agents, num_agents)}")
    if not np.isfinite(matrix).all():
        j, k = np.argwhere(~np.isfinite(matrix))[0]
        raise ValueError(f"mixing matrix: Π[{j}, {k}] is {matrix[j, k]}; every weight is finite")
    topology = Topology(name, graph, matrix)
    if validate:
        _check_assumption_2(topology)
    return topology


def _check_assumption_2(topology: Topology) -> None:
    """Π symmetric, zero off the edges, null(I − Π) = span(1), −I ≺ Π ⪯ I."""
    matrix = topology.mixing_matrix
    edges = adjacency_matrix(topology.graph)
    _check_connected(topology.graph)
    _check_off_edges(matrix, edges)
    _check_symmetric(matrix)
    _check_row_sums(matrix)
    # Perron–Frobenius: with Π ≥ 0, weights on all edges of a connected graph and a positive
    # diagonal Π is primitive, so −1 < λ_N and λ2 < 1 without the O(N³) spectrum.
    if not (matrix.min() >= 0 and matrix.diagonal().min() > 0 and (matrix[edges] > 0).all()):
        _check_spectrum(topology)


def _check_connected(graph: nx.Graph) -> None:
    if nx.is_connected(graph):
        return
    components = [sorted(component) for component in nx.connected_components(graph)]
    shown = ", ".join(_abbreviated(component) for component in components[:4])
    more = f" and {len(components) - 4} more" if len(components) > 4 else ""
    raise ValueError(f"graph is not connected: its components are {shown}{more}; join them")


def _abbreviated(agents: list[int]) -> str:
    shown = ", ".join(map(str, agents[:6]))
    return f"{{{shown}, ... {len(agents)} agents}}" if len(agents) > 6 else f"{{{shown}}}"


def _check_off_edges(matrix: np.ndarray, edges: np.ndarray) -> None:
    stray = ((matrix > _TOLERANCE) | (matrix < -_TOLERANCE)) & ~edges
    np.fill_diagonal(stray, False)
    if stray.any():
        j, k = np.argwhere(stray)[0]
        raise ValueError(f"mixing matrix: Π[{j}, {k}] is {matrix[j, k]:g}, but agents {j} and {k} "
                         "share no edge; set it to 0, or add the edge")  # fmt: skip


def _largest_asymmetry(matrix: np.ndarray) -> tuple[tuple[int, int], float]:
    difference = matrix - matrix.T
    np.abs(difference, out=difference)
    j, k = divmod(int(np.argmax(difference)), len(matrix))
    return (j, k), float(difference[j, k])


def _check_symmetric(matrix: np.ndarray) -> None:
    (j, k), difference = _largest_asymmetry(matrix)
    if difference > _TOLERANCE:
        raise ValueError(
            f"mixing matrix is not symmetric: Π[{j}, {k}] is {matrix[j, k]:.9g}, Π[{k}, {j}] is "
            f"{matrix[k, j]:.9g}; use weights 'metropolis_hastings', or pass validate=False"
        )


def _check_row_sums(matrix: np.ndarray) -> None:
    sums = matrix.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > _TOLERANCE:
        raise ValueError(f"mixing matrix: row {worst} sums to {sums[worst]:.9g}, not to 1; take "
                         f"the difference off Π[{worst}, {worst}]")  # fmt: skip


def _check_spectrum(topology: Topology) -> None:
    smallest, second = topology.smallest_eigenvalue, topology.second_eigenvalue
    if smallest <= -1 + _TOLERANCE:
        raise ValueError(f"mixing matrix: λ_N is {smallest:.9g}, not above -1; use weights 'lazy', "
                         "that is (I + Π)/2")  # fmt: skip
    if second >= 1 - _TOLERANCE:
        raise ValueError(f"mixing matrix: λ2 is {second:.9g}, not below 1, so agents would not "
                         "reach consensus; give every edge a positive weight")  # fmt: skip
