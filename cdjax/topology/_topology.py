"""A communication graph with its mixing matrix, and the spectrum that decides how fast it mixes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from jaxtyping import Float, Num

# Decimal weights that people write into files are rounded to about this; float64 is far finer.
TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class Topology:
    """A communication graph with its mixing matrix Π. Build one with ``cdjax.topology``.

    Attributes:
        name: what tables and plots call it.
        graph: the graph on the agents 0..N-1, without self loops; frozen.
        mixing_matrix: Π, float64, shape (N, N), read-only. Row = receiver.
    """

    name: str
    graph: nx.Graph
    mixing_matrix: Float[np.ndarray, "agents agents"]

    def __post_init__(self) -> None:
        # Copies, because freezing what the caller passed would stop the caller from editing it.
        # Nobody can change a frozen graph, so that one is shared.
        graph = self.graph if nx.is_frozen(self.graph) else nx.freeze(self.graph.copy())
        matrix = np.array(self.mixing_matrix, np.float64)
        matrix.setflags(write=False)
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "mixing_matrix", matrix)

    @property
    def num_agents(self) -> int:
        """N."""
        return len(self.mixing_matrix)

    @cached_property
    def eigenvalues(self) -> Num[np.ndarray, " agents"]:
        """All N eigenvalues of Π, descending; if Π is not symmetric, complex and by modulus."""
        # A matrix that is symmetric up to rounding must not get a complex spectrum.
        if largest_asymmetry(self.mixing_matrix)[1] <= TOLERANCE:
            spectrum = np.linalg.eigvalsh(self.mixing_matrix)[::-1]
        else:
            spectrum = np.linalg.eigvals(self.mixing_matrix).astype(np.complex128)
            spectrum = spectrum[np.argsort(-np.abs(spectrum), kind="stable")]
        spectrum.setflags(write=False)
        return spectrum

    @property
    def second_eigenvalue(self) -> float:
        """λ2, the second largest eigenvalue, or modulus if Π is not symmetric; 0 for N = 1."""
        if self.num_agents == 1:
            return 0.0
        second = self.eigenvalues[1]
        return float(abs(second) if np.iscomplexobj(second) else second)

    @property
    def smallest_eigenvalue(self) -> float:
        """λ_N, the smallest eigenvalue, or real part if Π is not symmetric; 1 for N = 1."""
        return float(np.min(np.real(self.eigenvalues)))

    @property
    def spectral_gap(self) -> float:
        """1 − σ, where σ = max(abs(λ2), abs(λ_N)) is the contraction of a mix; 1 for N = 1."""
        return 1.0 - float(np.max(np.abs(self.eigenvalues[1:]), initial=0.0))

    def __repr__(self) -> str:
        edges = self.graph.number_of_edges()
        return f"Topology({self.name!r}, num_agents={self.num_agents}, num_edges={edges})"


def largest_asymmetry(matrix: np.ndarray) -> tuple[tuple[int, int], float]:
    """The entry where a matrix differs most from its transpose, and by how much."""
    # One N × N array at a time: at N = 10,000 each is 0.8 GB.
    difference = matrix - matrix.T
    np.abs(difference, out=difference)
    j, k = divmod(int(np.argmax(difference)), len(matrix))
    return (j, k), float(difference[j, k])
