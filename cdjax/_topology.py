"""A communication graph and its mixing matrix, checked against Assumption 2 of the paper.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import numpy.typing as npt

from cdjax._weights import WEIGHTS

if TYPE_CHECKING:
    from jaxtyping import Float

Weights = str | Callable[[nx.Graph], np.ndarray]

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
        """All N eigenvalues of Π: λ1 = 1 first, then falling; complex ones by their modulus."""
        if np.array_equal(self.mixing_matrix, self.mixing_matrix.T):
            return np.linalg.eigvalsh(self.mixing_matrix)[::-1]
        spectrum = np.linalg.eigvals(self.mixing_matrix)
        return spectrum[np.argsort(-np.abs(spectrum), kind="stable")]

    @property
    def second_eigenvalue(self) -> float:
        """λ2, the second largest eigenvalue (its modulus where complex); 0 for one agent."""
        return _real(self.eigenvalues[1]) if self.num_agents > 1 else 0.0

    @property
    def smallest_eigenvalue(self) -> float:
        """λ_N, the smallest eigenvalue (the smallest real part where complex)."""
        return float(np.min(np.real(self.eigenvalues)))

    @property
    def spectral_gap(self) -> float:
        """1 − σ, with σ the largest modulus of an eigenvalue but the first; 1 for one agent."""
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
            Self loops and edge attributes are ignored; for weights of your own see
            :func:`from_matrix`.
        weights: ``metropolis_hastings``, ``uniform``, ``max_degree``, ``laplacian``, ``lazy``, or a
            function from the graph to a matrix of shape (N, N).
        name: what tables and plots call it.
        validate: whether Assumption 2 is checked.

    Returns:
        The topology.

    Raises:
        ValueError: if the graph is directed or empty, or Π fails Assumption 2; the error says how.

    Example::

        topology = cdjax.topology.from_graph(nx.karate_club_graph())

    Reference: Jiang et al. (2017), Assumption 2.
    """
    if graph.is_directed():
        raise ValueError(
            "graph is directed; give graph.to_undirected(), or a matrix to from_matrix"
        )
    if not graph.number_of_nodes():
        raise ValueError("graph has no nodes; there must be at least 1 agent")
    plain = nx.Graph()
    plain.add_nodes_from(range(graph.number_of_nodes()))
    numbers = {node: number for number, node in enumerate(graph)}
    plain.add_edges_from((numbers[a], numbers[b]) for a, b in graph.edges() if a != b)
    if validate:
        _check_connected(plain)
    matrix = weight_function(weights)(plain)
    return _topology(name or graph.name or "graph", plain, matrix, validate=validate)


def from_matrix(matrix: npt.ArrayLike, *, name: str = "matrix", validate: bool = True) -> Topology:
    """A topology from a mixing matrix; its non-zero entries are the edges.

    Args:
        matrix: Π, shape (N, N); ``matrix[j, l]`` is the weight that agent j gives to agent l.
        name: what tables and plots call it.
        validate: whether Assumption 2 is checked; without, any square finite matrix passes.

    Returns:
        The topology.

    Raises:
        ValueError: if the matrix is not square and finite, or fails Assumption 2; the error says
            how.

    Reference: Jiang et al. (2017), Assumption 2.
    """
    matrix = np.array(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"matrix has shape {matrix.shape}; expected (N, N) with N at least 1")
    graph = nx.Graph()
    graph.add_nodes_from(range(len(matrix)))
    graph.add_edges_from((int(j), int(k)) for j, k in np.argwhere(matrix) if j != k)
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
    """
    graph = nx.Graph()
    graph.add_edges_from(_read_edges(path))
    if not graph.number_of_nodes():
        raise ValueError(f"{path} has no edges; write two agent numbers a line, as in '0 1'")
    count = max(graph) + 1 if num_agents is None else num_agents
    strangers = sorted(set(graph) - set(range(count)))
    if strangers:
        raise ValueError(f"{path} names agent {strangers[0]}, but the {count} agents are numbered "
                         f"0 to {count - 1}")  # fmt: skip
    missing = sorted(set(range(count)) - set(graph))
    if missing:
        raise ValueError(f"{path} has no edge of agent {missing[0]}; {count} agents need one each")
    ordered = nx.Graph()
    ordered.add_nodes_from(range(count))
    ordered.add_edges_from(graph.edges())
    return from_graph(ordered, weights, name=os.path.basename(path))


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


def weight_function(weights: Weights) -> Callable[[nx.Graph], np.ndarray]:
    """The function that ``weights`` names, or ``weights`` itself."""
    if callable(weights):
        return weights
    if weights not in WEIGHTS:
        raise ValueError(unknown_name("weights", weights, list(WEIGHTS)))
    return WEIGHTS[weights]


def unknown_name(argument: str, name: str, choices: list[str]) -> str:
    """The error text for a name that is not among the choices, with the nearest one."""
    nearest = get_close_matches(name, choices, n=1)
    guess = f" (did you mean {nearest[0]!r}?)" if nearest else ""
    return f"unknown {argument} {name!r}{guess}; expected one of {', '.join(choices)}"


def _topology(name: str, graph: nx.Graph, matrix: np.ndarray, *, validate: bool) -> Topology:
    num_agents = graph.number_of_nodes()
    matrix = np.array(matrix, dtype=np.float64)
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
    matrix, graph = topology.mixing_matrix, topology.graph
    _check_connected(graph)
    off_edges = np.abs(matrix) > _TOLERANCE
    off_edges &= nx.to_numpy_array(graph, nodelist=range(len(matrix))) == 0
    np.fill_diagonal(off_edges, False)
    if off_edges.any():
        j, k = np.argwhere(off_edges)[0]
        raise ValueError(f"mixing matrix: Π[{j}, {k}] is {matrix[j, k]:g}, but agents {j} and {k} "
                         "share no edge; set it to 0")  # fmt: skip
    sums = matrix.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > _TOLERANCE:
        raise ValueError(f"mixing matrix: row {worst} sums to {sums[worst]:.9g}, not to 1; divide "
                         "the rows by their sums, or pass validate=False")  # fmt: skip
    asymmetry = np.abs(matrix - matrix.T)
    j, k = np.unravel_index(np.argmax(asymmetry), asymmetry.shape)
    if asymmetry[j, k] > _TOLERANCE:
        raise ValueError(
            f"mixing matrix is not symmetric: Π[{j}, {k}] is {matrix[j, k]:g}, Π[{k}, {j}] is "
            f"{matrix[k, j]:g}; use weights 'metropolis_hastings', or pass validate=False"
        )
    # Perron–Frobenius: of a connected graph, a matrix ≥ 0 with a positive diagonal is primitive,
    # so −1 < λ_N and λ2 < 1 without the O(N³) spectrum.
    if (matrix >= 0).all() and (np.diag(matrix) > 0).all():
        return
    if topology.smallest_eigenvalue <= -1 + _TOLERANCE:
        raise ValueError(f"mixing matrix: λ_N is {topology.smallest_eigenvalue:.9g}, not above -1; "
                         "use weights 'lazy', that is (I + Π)/2")  # fmt: skip
    if topology.num_agents > 1 and topology.second_eigenvalue >= 1 - _TOLERANCE:
        raise ValueError(f"mixing matrix: λ2 is {topology.second_eigenvalue:.9g}, not below 1; "
                         "null(I - Π) must be span(1): give positive weights")  # fmt: skip


def _check_connected(graph: nx.Graph) -> None:
    if nx.is_connected(graph):
        return
    components = [sorted(component) for component in nx.connected_components(graph)]
    shown = ", ".join(_abbreviated(component) for component in components[:4])
    more = f" and {len(components) - 4} more" if len(components) > 4 else ""
    raise ValueError(
        f"graph is not connected: its components are {shown}{more}; join them by edges"
    )


def _abbreviated(agents: list[int]) -> str:
    shown = ", ".join(map(str, agents[:6]))
    return f"{{{shown}, ... {len(agents)} agents}}" if len(agents) > 6 else f"{{{shown}}}"


def _real(eigenvalue: np.number) -> float:
    return float(np.abs(eigenvalue) if np.iscomplexobj(eigenvalue) else np.real(eigenvalue))
