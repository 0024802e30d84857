"""Rounds: who sends to whom at the same time, and how the leaves of a tree travel in one round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import lax
from jaxtyping import Array, Int

Round: TypeAlias = list[tuple[int, int]]
# The colouring so far, from one end: whom a device reaches in each round; -1 for nobody.
_Colors: TypeAlias = Int[np.ndarray, "devices rounds"]

# Leaves below this travel together. A message costs 0.1 to 0.2 ms between virtual CPU devices,
# about 10 µs between GPUs; copying a larger leaf into a common buffer costs more than that.
_BUNDLE_BYTES = 1 << 20


def cut_into_rounds(links: npt.ArrayLike, num_devices: int) -> list[Round]:
    """Cuts links (sender, receiver) into the fewest rounds where nobody sends or receives twice.

    A proper edge colouring of the bipartite graph of senders and receivers, a colour being a round.
    It needs no more colours than the largest number of links that leave or enter one device
    (Kőnig). Links that come first get the first colours; within a round they are sorted by sender.

    Reference: Kőnig (1916), *Über Graphen und ihre Anwendung auf Determinantentheorie und
    Mengenlehre*, Mathematische Annalen 77.
    """
    links = np.array(links, np.intp).reshape(-1, 2)
    counts = [np.bincount(ends, minlength=num_devices) for ends in links.T]
    receiver_of = np.full((num_devices, np.max(counts, initial=0)), -1)
    sender_of = receiver_of.copy()

    for sender, receiver in links.tolist():
        # A device has at most one link per colour one way, and this one has no colour yet: there is
        # a free colour at either end, if not always the same.
        free_to_send, free_to_receive = receiver_of[sender] < 0, sender_of[receiver] < 0
        if (free_to_send & free_to_receive).any():
            color = int(np.argmax(free_to_send & free_to_receive))
        else:
            color, other = int(np.argmax(free_to_send)), int(np.argmax(free_to_receive))
            _swap_colors(receiver_of, sender_of, receiver, color, other)
        receiver_of[sender, color], sender_of[receiver, color] = receiver, sender
    return [[(s, int(r)) for s, r in enumerate(receivers) if r >= 0] for receivers in receiver_of.T]


def _swap_colors(
    receiver_of: _Colors, sender_of: _Colors, receiver: int, color: int, other: int
) -> None:
    """Frees a colour at a receiver, at which ``other`` is free, by Kőnig's alternating path.

    The path starts at the receiver and takes links of the two colours in turn, ``color`` first. At
    every device the two colours meet at most one link each, so the path is unique and, as ``other``
    is free at its start, is no circle. Swapping the two colours all along it keeps the colouring
    proper: inside of the path a device has both colours before and after, and at its last device
    the colour that gets used is free, or the path would go on. Afterwards ``color`` is free at the
    receiver. It stays free at the sender that asks for it: the path comes to senders over links of
    ``color`` only, and that sender has none.
    """
    path = []
    while (sender := int(sender_of[receiver, color])) >= 0:
        path.append((sender, receiver, color, other))
        if (receiver := int(receiver_of[sender, other])) < 0:
            break
        path.append((sender, receiver, other, color))
    # All old colours go before the new ones come: neighbouring links of the path share a device.
    for sender, receiver, old, _ in path:
        receiver_of[sender, old] = sender_of[receiver, old] = -1
    for sender, receiver, _, new in path:
        receiver_of[sender, new], sender_of[receiver, new] = receiver, sender


def send(
    leaves: Sequence[Array], axis_name: str, links: Round, *, bundle: bool = True
) -> list[Array]:
    """Sends one device's leaves along one round of links; a device that none leads to gets zeros.

    Leaves below 1 MiB travel in one message per dtype, unless ``bundle`` is False: leaves that are
    divided over another axis of the mesh would have to be gathered for it.
    """
    if not bundle:
        return [lax.ppermute(x, axis_name, links) for x in leaves]
    bundles: dict[object, list[int]] = {}
    for i, x in enumerate(leaves):
        bundles.setdefault(x.dtype if x.nbytes < _BUNDLE_BYTES else i, []).append(i)
    arrived = list(leaves)
    for members in bundles.values():
        message = jnp.concatenate([leaves[i].ravel() for i in members])
        message = lax.ppermute(message, axis_name, links)
        parts = jnp.split(message, np.cumsum([leaves[i].size for i in members])[:-1])
        for i, part in zip(members, parts, strict=True):
            arrived[i] = part.reshape(leaves[i].shape)
    return arrived
