"""Assumption 2 of Jiang et al. (2017), a function per condition; errors name what fails."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import networkx as nx
import numpy as np

from cdjax.topology._entries import Entries, codes_of, largest_asymmetry
from cdjax.topology._topology import TOLERANCE, Topology, agent_name
from cdjax.topology._weights import links_of_graph

# The weights of a row in float32 are off by half of the last place of one each, at most.
FLOAT32_TOLERANCE = 8 * float(np.finfo(np.float32).eps)


def check_assumption_2(topology: Topology) -> None:
    """Π symmetric, zero off the edges, null(I − Π) = span(1), −I ≺ Π ⪯ I."""
    entries = topology.entries
    links = links_of_graph(topology.graph)
    check_connected(topology.graph, topology.labels)
    check_zero_off_edges(topology, codes_of(*links, topology.num_agents))
    check_symmetric(entries)
    check_row_sums(entries)
    # Perron–Frobenius: with Π ≥ 0, a weight on every edge of a connected graph and a positive
    # diagonal, Π is primitive. Then −1 < λ_N and λ2 < 1 hold without the O(N³) spectrum.
    is_positive = entries.weights.min() >= 0 and entries.diagonal.min() > 0
    if not (is_positive and (entries.at(*links) > 0).all()):
        check_spectrum(topology)


def check_connected(graph: nx.Graph, labels: tuple[Hashable, ...]) -> None:
    """Otherwise null(I − Π) is larger than span(1): each component finds its own consensus."""
    if not nx.is_connected(graph):
        found = components_of(graph, labels)
        raise ValueError(f"graph is not connected: its components are {found}; join them")


def components_of(graph: nx.Graph, labels: tuple[Hashable, ...]) -> str:
    """The connected components by their agents' labels, at most four, at most six agents each."""
    components = [sorted(component) for component in nx.connected_components(graph)]
    shown = ", ".join(_abbreviated([labels[j] for j in agents]) for agents in components[:4])
    return f"{shown} and {len(components) - 4} more" if len(components) > 4 else shown


def check_zero_off_edges(topology: Topology, edges: np.ndarray) -> None:
    """An agent weighs its neighbours and itself only."""
    others = topology.entries.off_diagonal
    stray = (np.abs(others.weights) > TOLERANCE) & ~np.isin(others.codes, edges)
    if stray.any():
        first = int(np.argmax(stray))
        j, k = int(others.receivers[first]), int(others.senders[first])
        one, other = (agent_name(topology.labels, agent) for agent in (j, k))
        raise ValueError(
            f"mixing matrix: Π[{j}, {k}] is {others.weights[first]:g}, but agents {one} and "
            f"{other} share no edge; set it to 0, or add the edge"
        )


def check_symmetric(entries: Entries) -> None:
    """Π = Πᵀ, so that its columns sum to one where its rows do."""
    (j, k), difference = largest_asymmetry(entries)
    if difference > TOLERANCE:
        one, other = entries.at([j, k], [k, j])
        raise ValueError(
            f"mixing matrix is not symmetric: Π[{j}, {k}] is {one:.9g}, Π[{k}, {j}] is "
            f"{other:.9g}; use weights 'metropolis_hastings', or pass validate=False"
        )


def check_row_sums(entries: Entries) -> None:
    """Π1 = 1: agents that agree stay where they are."""
    sums = entries.row_sums()
    worst = int(np.argmax(np.abs(sums - 1)))
    apart = abs(sums[worst] - 1)
    if apart > TOLERANCE:
        rounded = ", or build Π in float64: float32 has rounded it"
        raise ValueError(
            f"mixing matrix: row {worst} sums to {sums[worst]:.9g}, not to 1; subtract the "
            f"difference from Π[{worst}, {worst}]{rounded if apart < FLOAT32_TOLERANCE else ''}"
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


def _abbreviated(agents: Iterable[Hashable]) -> str:
    names = [*map(str, agents)]
    shown = ", ".join(names[:6])
    return f"{{{shown}, ... {len(names)} agents}}" if len(names) > 6 else f"{{{shown}}}"
