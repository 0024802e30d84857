"""The directed links of a topology: in a list, and in a table with a slot a link."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class Links(NamedTuple):
    """The weights of Π off its diagonal, receiver by receiver, and by sender within each.

    Attributes:
        receivers: of each link, the row of Π.
        senders: the column.
        weights: the entry.
        own: the diagonal of Π.
        in_slots: the numbers of agent j's links, as a receiver; -1 in a slot that it does not need.
    """

    receivers: Int[np.ndarray, " links"]
    senders: Int[np.ndarray, " links"]
    weights: Float[np.ndarray, " links"]
    own: Float[np.ndarray, " agents"]
    in_slots: Int[np.ndarray, "agents slots"]


def links_of(matrix: Float[np.ndarray, "agents agents"]) -> Links:
    """The links of a mixing matrix of shape (N, N)."""
    table = listed((matrix != 0) & ~np.eye(len(matrix), dtype=bool))
    receivers, slots = np.nonzero(table >= 0)
    senders = table[receivers, slots]
    numbers = np.full(table.shape, -1)
    numbers[receivers, slots] = np.arange(len(receivers))
    return Links(receivers, senders, matrix[receivers, senders], matrix.diagonal().copy(), numbers)


def listed(entries: Bool[np.ndarray, "rows columns"]) -> Int[np.ndarray, "rows slots"]:
    """The columns of each row's true entries, rising; -1 behind those of a row that has fewer."""
    rows, columns = np.nonzero(entries)
    table = np.full((len(entries), np.max(entries.sum(axis=1), initial=0)), -1)
    table[rows, np.arange(len(rows)) - np.searchsorted(rows, rows)] = columns
    return table
