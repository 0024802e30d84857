"""Assumption 2 of Jiang et al. (2017), a function per condition; errors name what fails."""

from __future__ import annotations

import networkx as nx
import numpy as np

from cdjax.topology._topology import TOLERANCE, Topology, largest_asymmetry
from cdjax.topology._weights import adjacency_matrix


def check_assumption_2(topology: Topology) -> None:
    """Π symmetric, zero off the edges, null(I − Π) = span(1), −I ≺ Π ⪯ I."""
    matrix = topology.mixing_matrix
    edges = adjacency_matrix(topology.graph)
    check_connected(topology.graph)
    check_zero_off_edges(matrix, edges)
    check_symmetric(matrix)
    check_row_sums(matrix)
    # Perron–Frobenius: with Π ≥ 0, a weight on every edge of a connected graph and a positive
    # diagonal, Π is primitive. Then −1 < λ_N and λ2 < 1 hold without the O(N³) spectrum.
    if not (matrix.min() >= 0 and matrix.diagonal().min() > 0 and (matrix[edges] > 0).all()):
        check_spectrum(topology)


def check_connected(graph: nx.Graph) -> None:
    """Otherwise null(I − Π) is larger than span(1): each component finds its own consensus."""
    if not nx.is_connected(graph):
        found = components_of(graph)
        raise ValueError(f"graph is not connected: its components are {found}; join them")


def components_of(graph: nx.Graph) -> str:
    """The connected components for an error message, at most four, at most six agents each."""
    components = [sorted(component) for component in nx.connected_components(graph)]
    shown = ", ".join(_abbreviated(component) for component in components[:4])
    return f"{shown} and {len(components) - 4} more" if len(components) > 4 else shown


def check_zero_off_edges(matrix: np.ndarray, edges: np.ndarray) -> None:
    """An agent weighs its neighbours and itself only."""
    # No abs(matrix): it would be one more N × N array of float64.
    stray = ((matrix > TOLERANCE) | (matrix < -TOLERANCE)) & ~edges
    np.fill_diagonal(stray, False)
    if stray.any():
        j, k = np.argwhere(stray)[0]
        raise ValueError(
            f"mixing matrix: Π[{j}, {k}] is {matrix[j, k]:g}, but agents {j} and {k} share no "
            "edge; set it to 0, or add the edge"
        )


def check_symmetric(matrix: np.ndarray) -> None:
    """Π = Πᵀ, so that its columns sum to one where its rows do."""
    (j, k), difference = largest_asymmetry(matrix)
    if difference > TOLERANCE:
        raise ValueError(
            f"mixing matrix is not symmetric: Π[{j}, {k}] is {matrix[j, k]:.9g}, Π[{k}, {j}] is "
            f"{matrix[k, j]:.9g}; use weights 'metropolis_hastings', or pass validate=False"
        )


def check_row_sums(matrix: np.ndarray) -> None:
    """Π1 = 1: agents that agree stay where they are."""
    sums = matrix.sum(axis=1)
    worst = int(np.argmax(np.abs(sums - 1)))
    if abs(sums[worst] - 1) > TOLERANCE:
        raise ValueError(
            f"mixing matrix: row {worst} sums to {sums[worst]:.9g}, not to 1; subtract the "
            f"difference from Π[{worst}, {worst}]"
        )


def check_spectrum(topology: Topology) -> None:
    """−1 < λ_N and λ2 < 1: repeated mixing neither oscillates nor leaves agents apart."""
    smallest, second = topology.smallest_eigenvalue, topology.second_eigenvalue
    if smallest <= -1 + TOLERANCE:
        raise ValueError(
            f"mixing matrix: λ_N is {smallest:.9g}, not above -1; use weights 'lazy', (I + Π)/2"
        )
    if second >= 1 - TOLERANCE:
        raise ValueError(
            f"mixing matrix: λ2 is {second:.9g}, not below 1, so agents would not reach "
            "consensus; give every edge a positive weight"
        )


def _abbreviated(agents: list[int]) -> str:
    shown = ", ".join(map(str, agents[:6]))
    return f"{{{shown}, ... {len(agents)} agents}}" if len(agents) > 6 else f"{{{shown}}}"
