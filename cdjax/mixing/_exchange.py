"""Mixing where one device holds a block of agents: devices exchange only boundary agents."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int

from cdjax._checks import check_stacked, check_topology
from cdjax._trees import along_agents, floating_leaves, map_floats_together, widened
from cdjax._types import Params
from cdjax.mixing._dense import row_sums
from cdjax.mixing._neighbors import slots_of
from cdjax.mixing._rounds import Round, cut_into_rounds, send
from cdjax.sharding import AXIS, block_size
from cdjax.topology import Topology
from cdjax.topology._entries import Entries, entries_of

# Beyond so many senders per agent, a product with all of them is faster than reading each.
_MOST_SLOTS = 16
# But not where its weights would take more than 2 GB.
_MOST_IN_BLOCK = 1 << 28


class Codec(NamedTuple):
    """How rows of agents become messages, and are read where they arrive.

    Attributes:
        encode: from leaves of shape ``(agents, ...)``, the agents' numbers and the step to any tree
            of arrays that lead with the same agents: these arrays travel, in their dtypes.
        decode: from those and the leaves' shapes and dtypes of one agent to leaves.
    """

    encode: Callable[[list[Array], Int[Array, " agents"], int | Int[Array, ""]], Any]
    decode: Callable[[Any, list[jax.ShapeDtypeStruct]], list[Array]]


_AS_THEY_ARE = Codec(lambda leaves, agents, step: leaves, lambda leaves, likes: leaves)


@dataclass(frozen=True, eq=False)
class Exchange:
    """The mixer that :func:`exchange` makes.

    Attributes:
        topology: the graph and its mixing matrix.
        mesh: the devices among which the agents are divided.
        axis: the name of the agents' axis of the mesh.
    """

    topology: Topology
    mesh: Mesh
    axis: str

    def __call__(self, tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        """The mixed tree."""
        check_stacked(tree, self.topology.num_agents)
        return map_floats_together(lambda leaves: self._mix(leaves, 0)[1], tree)

    @functools.cached_property
    def _mix(self) -> Callable[..., tuple[list[Array], list[Array]]]:
        return self._exchanged(_AS_THEY_ARE)

    def of_messages(
        self, codec: Codec
    ) -> Callable[[Params, int | Int[Array, ""]], tuple[Params, Params]]:
        r"""The exchange of messages in place of leaves, which are decoded where they arrive.

        Args:
            codec: how an agent's leaves become a message, and are read.

        Returns:
            A function from a stacked tree and the step to two: what is read from each agent's
            message, :math:`q`, and its mixture :math:`\Pi q`. Agents read their own as well.

        Raises:
            ValueError: if the mesh has another axis, over which an agent may be divided.

        Example::

            exchange = cdjax.mixing.exchange(topology, mesh)
            q, mixed = exchange.of_messages(cdjax.compress.sign().codec)(params, 0)
        """
        if self.mesh.size > self.mesh.shape[self.axis]:
            others = ", ".join(name for name in self.mesh.shape if name != self.axis)
            raise ValueError(
                f"mesh divides agents over {others} too, but a message is made of a whole agent; "
                f"give a mesh of {self.axis} only, such as cdjax.sharding.agent_mesh()"
            )
        exchanged = self._exchanged(codec)

        def mix(tree: Params, step: int | Int[Array, ""]) -> tuple[Params, Params]:
            check_stacked(tree, self.topology.num_agents)
            leaves = [jnp.asarray(x) for x in floating_leaves(tree)]
            own, mixed = exchanged(leaves, step)
            return (
                map_floats_together(lambda _: own, tree),
                map_floats_together(lambda _: mixed, tree),
            )

        return mix

    def _exchanged(self, codec: Codec) -> Callable[..., tuple[list[Array], list[Array]]]:
        """What is read from each agent's message, and its mixture, of the leaves at a step."""
        num_agents, num_devices = self.topology.num_agents, self.mesh.shape[self.axis]
        entries = self.topology.entries
        rounds, rows, weights = _schedule(entries, num_devices)
        is_divided = self.mesh.size > num_devices
        constants = np.arange(num_agents, dtype=np.int32), row_sums(entries), rows, weights

        def mix_block(
            leaves: list[Array],
            step: Int[Array, ""],
            agents: Int[Array | np.ndarray, " block"],
            sums: Float[Array | np.ndarray, " block"],
            rows: list[Int[Array | np.ndarray, "1 _"]],
            weights: list[_Weights],
        ) -> tuple[list[Array], list[Array]]:
            likes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in leaves]
            messages = codec.encode(leaves, jnp.asarray(agents), step)
            parts, structure = jax.tree.flatten(messages)
            heard = codec.decode(messages, likes)
            own = [widened(x) for x in heard]
            moved = [_pull(weights[0], x, x) for x in own]
            for links, sent, received in zip(rounds, rows, weights[1:], strict=True):
                given = [x if len(x) == 1 else x[sent[0]] for x in parts]
                arrived = send(given, self.axis, links, bundle=not is_divided)
                read = codec.decode(structure.unflatten(arrived), likes)
                moved = [
                    m + _pull(received, widened(y), x)
                    for m, x, y in zip(moved, own, read, strict=True)
                ]
            mixed = [along_agents(sums, x) * x + m for x, m in zip(own, moved, strict=True)]
            mixed = [m.astype(x.dtype) for m, x in zip(mixed, leaves, strict=True)]
            return [h.astype(x.dtype) for h, x in zip(heard, leaves, strict=True)], mixed

        by_device, everywhere = PartitionSpec(self.axis), PartitionSpec()
        mix_blocks = jax.shard_map(
            mix_block,
            mesh=self.mesh,
            in_specs=(by_device, everywhere, by_device, by_device, by_device, by_device),
            out_specs=by_device,
            axis_names={self.axis},
        )
        mix_blocks = jax.jit(mix_blocks)  # else a call outside of jit is one program per operation
        return lambda leaves, step: mix_blocks(leaves, jnp.asarray(step), *constants)


def exchange(topology: Topology, mesh: Mesh, *, axis: str = AXIS) -> Exchange:
    r"""A mixer for stacked trees whose agent axis is sharded over devices.

    .. math:: \text{mixed}^j = x^j + \sum_{l \in d} \Pi_{jl} (x^l - x^j)
                              + \sum_r \sum_{l \in e_r(d)} \Pi_{jl} (x^l - x^j), \quad j \in d

    with d the agents of a device and :math:`e_r(d)` those of the device from which it receives in
    round r. A device sends to another one only those of its agents that have a neighbour there.
    There are as many rounds of collective permutes as the most devices that one device receives
    from or sends to; nothing is gathered.

    Args:
        topology: the graph and its mixing matrix of shape (N, N).
        mesh: a mesh with an axis for the agents, whose length divides N, see
            :func:`cdjax.sharding.agent_mesh`. Over its other axes each agent's own arrays may be
            divided; they stay so, and each part is sent on its own.
        axis: the name of the agents' axis.

    Returns:
        A mixer equal to ``dense(topology)`` up to rounding, under jit or not. Algorithms that
        compress what they send (:func:`cdjax.choco`) send messages by it in place of leaves.

    Raises:
        ValueError: if the devices do not divide N.

    Example: ``mixed = jax.jit(cdjax.mixing.exchange(topology, mesh))(params)``

    Reference: Jiang et al. (2017), eq. 5, the term :math:`\sum_l \pi_{jl} x_k^l`.
    """
    check_topology(topology)
    block_size(topology.num_agents, mesh, axis=axis)
    return Exchange(topology, mesh, axis)


class _Weights(NamedTuple):
    """What a device's agents give to each row that ``senders`` names, or to all if it is None."""

    senders: Int[np.ndarray, "devices block slots"] | None
    weights: Float[np.ndarray, "devices block slots"]


def _schedule(
    matrix: Entries | Float[np.ndarray, "agents agents"], num_devices: int
) -> tuple[list[Round], list[Int[np.ndarray, "devices rows"]], list[_Weights]]:
    """The rounds, the rows that a device sends in each, and the weights of its own and of those."""
    links = entries_of(matrix).off_diagonal
    size = links.num_agents // num_devices
    link_of = links.receivers // size * num_devices + links.senders // size  # between devices
    row_of = links.senders % size
    is_far = links.receivers // size != links.senders // size
    # The rows that a device needs of another, each once: by receiving device, sending device, row.
    codes = link_of.astype(np.int64) * size + row_of
    needed = np.unique(codes[is_far])
    pairs, first, counts = np.unique(needed // size, return_index=True, return_counts=True)
    # All devices send equally many rows in a round, as many as its largest link needs, so links of
    # many rows come first and share the first rounds. Among links of as many rows, shift by shift:
    # all devices of a ring that send the same way are one round.
    receivers, senders = np.divmod(pairs, num_devices)
    order = np.lexsort(((receivers - senders) % num_devices, -counts))
    rounds = cut_into_rounds(np.stack([senders, receivers], axis=1)[order], num_devices)
    own = ~is_far
    rows, weights = [], [_in_slots(links.where(own), row_of[own], num_devices, num_rows=size)]
    for round_links in rounds:
        in_round = [receiver * num_devices + sender for sender, receiver in round_links]
        places = np.searchsorted(pairs, in_round)
        num_rows = int(counts[places].max())
        sent = np.zeros((num_devices, num_rows), np.int32)
        for (sender, _), place in zip(round_links, places, strict=True):
            rows_needed = needed[first[place] : first[place] + counts[place]] % size
            sent[sender, : len(rows_needed)] = rows_needed
        mine = is_far & np.isin(link_of, in_round)
        # Where a row stands among those that come with it.
        position = np.searchsorted(needed, codes[mine])
        position -= first[np.searchsorted(pairs, link_of[mine])]
        rows.append(sent)
        weights.append(_in_slots(links.where(mine), position, num_devices, num_rows=num_rows))
    return rounds, rows, weights


def _in_slots(
    links: Entries, rows: Int[np.ndarray, " links"], num_devices: int, *, num_rows: int
) -> _Weights:
    """The sparser form of some links' weights: a slot per sender where there are few, or the block.

    ``rows`` says which of the rows that its device receives a link is about.
    """
    block_shape = links.num_agents, num_rows
    numbers = slots_of(links.receivers, links.num_agents)
    if numbers.shape[1] > _MOST_SLOTS and math.prod(block_shape) <= _MOST_IN_BLOCK:
        block = np.zeros(block_shape)
        block[links.receivers, rows] = links.weights
        return _Weights(None, block.reshape(num_devices, -1, num_rows))
    shape = num_devices, links.num_agents // num_devices, numbers.shape[1]
    # One more in the end, for the slots that are not needed: -1 is its number.
    senders, weights = (np.append(x, 0)[numbers].reshape(shape) for x in (rows, links.weights))
    return _Weights(senders.astype(np.int32), weights)


def _pull(
    weights: _Weights, heard: Float[Array, "rows ..."], x: Float[Array, "block ..."]
) -> Float[Array, "block ..."]:
    """Σ_l Π_jl (x^l − x^j) over some rows l, a device's own or received; weights of one device.

    Sums of differences, and not of values, keep agents in consensus exactly: see ``product``.
    """
    if weights.senders is None:
        first, matrix = x[:1], weights.weights[0].astype(x.dtype)
        # "highest" keeps GPUs and TPUs from rounding the weights.
        to_first = jnp.einsum("jl,l...->j...", matrix, heard - first, precision="highest")
        return to_first - along_agents(matrix.sum(axis=1), x) * (x - first)
    moved = jnp.zeros_like(x)
    # One take per slot, as in `neighbors`: all at once they would be a copy of x each.
    for senders, column in zip(weights.senders[0].T, weights.weights[0].T, strict=True):
        moved += along_agents(column, x) * (heard[senders] - x)
    return moved
