"""Rounds: who sends to whom at once, and how the leaves of a tree travel in one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, DTypeLike

from cdjax._types import Params

Round: TypeAlias = list[tuple[int, int]]

# Leaves below this travel together. A message costs 0.1 to 0.2 ms between virtual CPU devices,
# about 10 µs between GPUs; copying a larger leaf into a common buffer costs more than that.
_BUNDLE_BYTES = 1 << 20


def cut_into_rounds(links: Iterable[tuple[int, int]], num_devices: int) -> list[Round]:
    r"""Cuts directed links into the fewest rounds in which nobody sends or receives twice.

    A proper edge colouring of the bipartite graph of senders and receivers. It needs no more
    colours than the largest number of links that leave or enter one device (Kőnig): a link that
    finds no common free colour gets one by swapping two colours along an alternating path. Links
    that come first get the first colours.

    Args:
        links: pairs (sender, receiver), each once.
        num_devices: how many devices there are.

    Returns:
        The rounds, each a list of links sorted by sender.

    Reference: Kőnig (1916), *Über Graphen und ihre Anwendung auf Determinantentheorie und
    Mengenlehre*, Mathematische Annalen 77.
    """
    links = list(links)
    ends = np.array(links, np.intp).reshape(-1, 2)
    counts = [np.bincount(column, minlength=num_devices) for column in ends.T]
    num_rounds = int(np.max(counts, initial=0))
    receiver_of = np.full((num_devices, num_rounds), -1)
    sender_of = np.full((num_devices, num_rounds), -1)

    def alternating_path(receiver: int, first: int, second: int) -> list[tuple[int, int, int]]:
        path = []
        while (sender := int(sender_of[receiver, first])) >= 0:
            path.append((sender, receiver, first))
            if (receiver := int(receiver_of[sender, second])) < 0:
                break
            path.append((sender, receiver, second))
        return path

    for sender, receiver in links:
        free_to_send, free_to_receive = receiver_of[sender] < 0, sender_of[receiver] < 0
        if (free_to_send & free_to_receive).any():
            color = int(np.argmax(free_to_send & free_to_receive))
        else:
            color, other = int(np.argmax(free_to_send)), int(np.argmax(free_to_receive))
            path = alternating_path(receiver, color, other)
            for s, r, c in path:
                receiver_of[s, c] = sender_of[r, c] = -1
            for s, r, c in path:
                receiver_of[s, color + other - c] = r
                sender_of[r, color + other - c] = s
        receiver_of[sender, color], sender_of[receiver, color] = receiver, sender
    return [[(s, int(r)) for s, r in enumerate(receivers) if r >= 0] for receivers in receiver_of.T]


def send(leaves: Sequence[Array], axis_name: str, links: Round) -> list[Array]:
    """Sends every leaf along the links; a device that is not sent to gets zeros.

    Leaves below 1 MiB travel in one message a dtype.

    Args:
        leaves: arrays of one device, inside of ``shard_map``, ``pmap`` or ``vmap``.
        axis_name: the mapped axis.
        links: one round of :func:`cut_into_rounds`.

    Returns:
        What arrives, leaf by leaf.
    """
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


def mix_floating(mix_leaves: Callable[[list[Array]], list[Array]], tree: Params) -> Params:
    """Mixes the floating-point leaves together; all others (counters) pass unchanged."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)]
    mixed = mix_leaves([jnp.asarray(leaves[i]) for i in floating])
    for i, x in zip(floating, mixed, strict=True):
        leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


def widened(dtype: DTypeLike) -> np.dtype:
    """The dtype in which to sum."""
    # At least float32 even for bfloat16 params: the rows of a rounded Π no longer sum to one and
    # the mean drifts.
    return jnp.promote_types(dtype, jnp.float32)
