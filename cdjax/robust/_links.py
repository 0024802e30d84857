"""The directed links of a topology, in a list and in a table, and which of them fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cdjax._checks import check_callable, check_step
from cdjax.mixing._dense import row_sums
from cdjax.mixing._neighbors import slots_of
from cdjax.topology._entries import Entries, entries_of


@runtime_checkable
class Fault(Protocol):
    """Names the links that fail at a step."""

    def __call__(self, step: int | Int[Array, ""]) -> Bool[Array, " links"]:
        """Returns whether each link fails, shape (links,).

        Links are the weights of Π off its diagonal, by receiver, then by sender.
        """
        ...


class Links(NamedTuple):
    """The entries of Π off its diagonal, by receiver (row), then by sender, its diagonal and sums.

    ``in_slots`` holds the numbers of the links on which agent j receives, filled up with -1.
    """

    receivers: Int[np.ndarray, " links"]
    senders: Int[np.ndarray, " links"]
    weights: Float[np.ndarray, " links"]
    own: Float[np.ndarray, " agents"]
    sums: Float[np.ndarray, " agents"]
    in_slots: Int[np.ndarray, "agents slots"]


def links_of(matrix: Entries | Float[np.ndarray, "agents agents"]) -> Links:
    """The links of a mixing matrix of shape (N, N)."""
    entries = entries_of(matrix)
    links = entries.off_diagonal
    in_slots = slots_of(links.receivers, entries.num_agents)
    ends = links.receivers, links.senders
    return Links(*ends, links.weights, entries.diagonal, row_sums(entries), in_slots)


def check_faults(faults: Sequence[Fault]) -> None:
    """Raises unless all are functions."""
    for fault in faults:
        check_callable("fault", fault, "a function of the step, as of cdjax.robust.failing_links")


def failed_links(
    links: Links, faults: Sequence[Fault], step: int | Int[Array, ""] | None
) -> Bool[Array, " links"]:
    """Whether any of the faults breaks each link at a step, which may be None without faults."""
    failed = jnp.zeros(links.receivers.shape, bool)
    for fault in faults:
        fails = fault(check_step(step, "a mixer with faults"))
        if fails.shape != failed.shape:
            raise ValueError(
                f"fault gave shape {fails.shape}, but the topology has {len(failed)} links; "
                "make it for this topology"
            )
        failed |= fails
    return failed


def heard_by_slot(
    links: Links, failed: Bool[Array, " links"]
) -> Iterator[tuple[Int[Array, " agents"], Float[np.ndarray, " agents"]]]:
    """Slot by slot: whom each agent reads, itself where nothing arrives, and with which weight."""
    itself = np.arange(len(links.own), dtype=links.senders.dtype)
    for numbers in links.in_slots.T:
        arrives = (numbers >= 0) & ~failed[numbers]
        heard = jnp.where(arrives, links.senders[numbers], itself)
        yield heard, np.where(numbers >= 0, links.weights[numbers], 0.0)
