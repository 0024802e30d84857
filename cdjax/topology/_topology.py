"""A communication graph with its mixing matrix, and the spectrum that decides how fast it mixes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float, Num

from cdjax.topology import _spectrum
from cdjax.topology._entries import MOST_DENSE, Entries, entries_of, largest_asymmetry
from cdjax.topology._spectrum import MOST_SOLVED, TOLERANCE


@dataclass(frozen=True, eq=False, init=False)
class Topology:
    """A communication graph with its mixing matrix Π. Build one with ``cdjax.topology``.

    Attributes:
        name: what tables and plots call it.
        graph: the graph on the agents 0..N-1, without self loops; frozen.
        entries: the non-zero entries of Π; the whole matrix is turned into them.
        labels: the agents' names, in their order: the nodes of the graph or file that the topology
            was made of. By default the numbers 0..N-1.
        laplacian: the eigenvalues of the graph's Laplacian, where its family's are known.
    """

    name: str
    graph: nx.Graph
    entries: Entries
    labels: tuple[Hashable, ...]
    laplacian: Float[np.ndarray, " agents"] | None

    def __init__(
        self,
        name: str,
        graph: nx.Graph,
        entries: Entries | Float[np.ndarray, "agents agents"],
        labels: tuple[Hashable, ...] | None = None,
        laplacian: Float[np.ndarray, " agents"] | None = None,
    ) -> None:
        # Copies, because freezing what the caller passed would stop the caller from editing it.
        # Nobody can change a frozen graph, so that one is shared.
        graph = graph if nx.is_frozen(graph) else nx.freeze(graph.copy())
        entries = entries_of(entries)
        labels = tuple(range(entries.num_agents)) if labels is None else tuple(labels)
        values = name, graph, entries, labels, laplacian
        for field, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # By way of the constructor: arrays are writable after pickle and copy.deepcopy.
        return type(self), (self.name, self.graph, self.entries, self.labels, self.laplacian)

    @property
    def num_agents(self) -> int:
        """N."""
        return self.entries.num_agents

    @cached_property
    def mixing_matrix(self) -> Float[np.ndarray, "agents agents"]:
        """Π, float64, shape (N, N), read-only. Row = receiver. Made when it is first read.

        Raises:
            ValueError: for more than 32,768 agents, whose matrix takes over 8 GB.
        """
        if self.num_agents > MOST_DENSE:
            raise ValueError(
                f"the mixing matrix of {self.num_agents} agents would take "
                f"{8e-9 * self.num_agents**2:.0f} GB; read topology.entries, which mixing.auto and "
                "the spectral gap work on"
            )
        matrix = np.asarray(self.entries)
        matrix.setflags(write=False)
        return matrix

    @cached_property
    def eigenvalues(self) -> Num[np.ndarray, " agents"]:
        """All N eigenvalues of Π, descending; if Π is not symmetric, complex and by modulus.

        Those of rings, complete and exponential graphs take O(N log N) time, those of paths, stars,
        tori and hypercubes with the same weight on all edges as well, all others O(N³).
        """
        spectrum = _spectrum.closed_form(self.entries, self.laplacian)
        # A matrix that is symmetric up to rounding must not get a complex spectrum.
        if spectrum is None and self._is_symmetric:
            spectrum = np.linalg.eigvalsh(self.mixing_matrix)
        elif spectrum is None:
            spectrum = np.linalg.eigvals(self.mixing_matrix).astype(np.complex128)
        key = -np.abs(spectrum) if np.iscomplexobj(spectrum) else -spectrum
        spectrum = spectrum[np.argsort(key, kind="stable")]
        spectrum.setflags(write=False)
        return spectrum

    @property
    def second_eigenvalue(self) -> float:
        """λ2, the second largest eigenvalue, or modulus if Π is not symmetric; 0 for N = 1."""
        if self.num_agents == 1:
            return 0.0
        if self._extremes:
            return self._extremes.second
        second = self.eigenvalues[1]
        return float(abs(second) if np.iscomplexobj(second) else second)

    @property
    def smallest_eigenvalue(self) -> float:
        """λ_N, the smallest eigenvalue, or real part if Π is not symmetric; 1 for N = 1."""
        if self._extremes:
            return self._extremes.smallest
        return float(np.min(np.real(self.eigenvalues)))

    @property
    def spectral_gap(self) -> float:
        """1 − σ, where σ = max(abs(λ2), abs(λ_N)) is the contraction of a mix; 1 for N = 1."""
        if self._extremes:
            return 1.0 - max(map(abs, self._extremes))
        return 1.0 - float(np.max(np.abs(self.eigenvalues[1:]), initial=0.0))

    @property
    def _is_symmetric(self) -> bool:
        return largest_asymmetry(self.entries)[1] <= TOLERANCE

    @cached_property
    def _extremes(self) -> _spectrum.Extremes | None:
        """λ2 and λ_N of a large Π, whose other eigenvalues would take too long."""
        if self.num_agents <= MOST_SOLVED or "eigenvalues" in vars(self):
            return None
        is_stochastic = np.max(np.abs(self.entries.row_sums() - 1)) <= TOLERANCE
        if not is_stochastic or not self._is_symmetric:
            return None
        if _spectrum.closed_form(self.entries, self.laplacian) is not None:
            return None
        return _spectrum.extremes(self.entries)

    def __repr__(self) -> str:
        edges = self.graph.number_of_edges()
        return f"Topology({self.name!r}, num_agents={self.num_agents}, num_edges={edges})"


def agent_name(labels: tuple[Hashable, ...], agent: int) -> str:
    """An agent for an error message: its number, and its label where that is another one."""
    label = labels[agent]
    return str(agent) if label == agent else f"{agent} (label {label})"
