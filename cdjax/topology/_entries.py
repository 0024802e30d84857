"""A mixing matrix by its non-zero entries: what a large topology holds in place of N² numbers."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

# A float64 matrix of so many agents takes 8.6 GB. Nothing but what asks for the matrix itself needs
# one: mixers, checks and spectra work on the entries.
MOST_DENSE = 32_768


@dataclass(frozen=True, eq=False)
class Entries:
    """The non-zero entries of a mixing matrix Π, by receiver (row), then by sender (column).

    Attributes:
        num_agents: N.
        receivers: of each entry, shape (entries,), read-only like the others.
        senders: of each entry.
        weights: Π[receiver, sender], float64.
    """

    num_agents: int
    receivers: Int[np.ndarray, " entries"]
    senders: Int[np.ndarray, " entries"]
    weights: Float[np.ndarray, " entries"]

    def __post_init__(self) -> None:
        for array in (self.receivers, self.senders, self.weights):
            array.setflags(write=False)

    def __reduce__(self) -> tuple:
        # By way of the constructor: arrays are writable after pickle and copy.deepcopy.
        return Entries, (self.num_agents, self.receivers, self.senders, self.weights)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """The whole matrix, for NumPy."""
        if copy is False:
            raise ValueError("entries are no array; numpy.asarray(entries) makes one")
        matrix = np.zeros((self.num_agents, self.num_agents), dtype or np.float64)
        matrix[self.receivers, self.senders] = self.weights
        return matrix

    @property
    def codes(self) -> Int[np.ndarray, " entries"]:
        """One number per entry, rising: receiver times N plus sender."""
        return codes_of(self.receivers, self.senders, self.num_agents)

    @property
    def diagonal(self) -> Float[np.ndarray, " agents"]:
        """Π[j, j] of every agent."""
        diagonal, own = np.zeros(self.num_agents), self.receivers == self.senders
        diagonal[self.receivers[own]] = self.weights[own]
        return diagonal

    @property
    def off_diagonal(self) -> Entries:
        """The entries between different agents."""
        return self.where(self.receivers != self.senders)

    def row_sums(self) -> Float[np.ndarray, " agents"]:
        """The sum of every row."""
        return sums_by_receiver(self.num_agents, self.receivers, self.weights)

    def equals(self, other: Entries) -> bool:
        """Whether two matrices are the same, to the last bit."""
        pairs = zip(self._parts, other._parts, strict=True)
        return self.num_agents == other.num_agents and all(np.array_equal(a, b) for a, b in pairs)

    def checksum(self) -> int:
        """The CRC-32 of the whole matrix's bytes, row by row, of which only one row is made."""
        total = 0
        for agent in range(self.num_agents):
            total = zlib.crc32(self.rows(np.array([agent])).tobytes(), total)
        return total

    @property
    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.receivers, self.senders, self.weights

    def where(self, chosen: np.ndarray) -> Entries:
        """Some of the entries."""
        parts = self.receivers[chosen], self.senders[chosen], self.weights[chosen]
        return Entries(self.num_agents, *parts)

    def at(self, receivers: npt.ArrayLike, senders: npt.ArrayLike) -> np.ndarray:
        """Π[receivers, senders], zeros included."""
        wanted, codes = codes_of(receivers, senders, self.num_agents), self.codes
        if not len(codes):
            return np.zeros(wanted.shape)
        places = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.where(codes[places] == wanted, self.weights[places], 0.0)

    def rows(self, agents: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows agents"]:
        """Some rows in full."""
        starts = np.searchsorted(self.receivers, [agents, agents + 1])
        rows = np.zeros((len(agents), self.num_agents))
        for row, start, stop in zip(rows, *starts, strict=True):
            row[self.senders[start:stop]] = self.weights[start:stop]
        return rows


def codes_of(receivers: npt.ArrayLike, senders: npt.ArrayLike, num_agents: int) -> np.ndarray:
    """One number per pair: receiver times N plus sender, which rises row by row."""
    return np.asarray(receivers, np.int64) * num_agents + np.asarray(senders)


def sums_by_receiver(
    num_agents: int, receivers: Int[np.ndarray, " entries"], weights: Float[np.ndarray, " entries"]
) -> Float[np.ndarray, " agents"]:
    """The sum of every row of weights in the order of entries, to the last place.

    Pairwise, as NumPy sums the rows of an array. np.bincount, which adds one by one, is off by
    6e-15 for 256 agents.
    """
    sums = np.zeros(num_agents)
    agents, starts = np.unique(receivers, return_index=True)
    if len(agents):
        sums[agents] = np.add.reduceat(weights, starts)
    return sums


def entries_of(matrix: Entries | np.ndarray) -> Entries:
    """The entries of a whole matrix of shape (N, N), or entries as they are."""
    if isinstance(matrix, Entries):
        return matrix
    receivers, senders = np.nonzero(matrix)
    weights = np.asarray(matrix[receivers, senders], np.float64)
    return Entries(len(matrix), _narrow(receivers), _narrow(senders), weights)


def in_order(
    num_agents: int, receivers: np.ndarray, senders: np.ndarray, weights: np.ndarray
) -> Entries:
    """Entries that came in any order, zeros among them; no pair may come twice."""
    order = np.argsort(codes_of(receivers, senders, num_agents), kind="stable")
    order = order[weights[order] != 0]
    ends = _narrow(receivers[order]), _narrow(senders[order])
    return Entries(num_agents, ends[0], ends[1], np.asarray(weights[order], np.float64))


def largest_asymmetry(entries: Entries) -> tuple[tuple[int, int], float]:
    """The entry above the diagonal that differs most from the one across it, and by how much."""
    difference = np.abs(entries.weights - entries.at(entries.senders, entries.receivers))
    if not difference.size:
        return (0, 0), 0.0
    worst = int(np.argmax(difference))
    j, k = sorted((int(entries.receivers[worst]), int(entries.senders[worst])))
    return (j, k), float(difference[worst])


def _narrow(agents: np.ndarray) -> np.ndarray:
    """In half the memory, for any number of agents that fits into it."""
    return agents.astype(np.int32)
