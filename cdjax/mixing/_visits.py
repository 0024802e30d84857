"""Exchange with agents that are drawn in every step, on several devices.

Whom agents hear is known to the running program only, so that no fixed list of permutes fits, and
XLA gathers all agents on every device for it. Here the block of agents of one device visits another
one at a time: at most D − 1 blocks pass by, as many bytes as in a gather, but of distances between
devices at which nobody has drawn anybody nothing is sent, and what a device holds is its own block
and the one that visits, whatever N.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Int

from cdjax._trees import along_agents, map_floats, map_floats_together
from cdjax._types import Params
from cdjax.sharding import block_size

# From the own and the visiting block, the numbers of their first agents, and the table of draws.
_Addend = Callable[[Array, Array, Array, Array, Array], Array]


def is_divided(mesh: Mesh | None, axis: str) -> bool:
    """Whether the agents are on several devices."""
    return mesh is not None and mesh.shape.get(axis, 0) != 1


def pulls_of_heard(
    tree: Params, heard: Int[Array, "draws agents"], mesh: Mesh | None, axis: str
) -> Params:
    r"""How far agents are from those that they hear, summed: :math:`\sum_d (x^{p_d(j)} - x^j)`."""
    heard = jnp.asarray(heard, jnp.int32)  # as the numbers of devices are
    if mesh is None or not is_divided(mesh, axis):
        of_leaf = lambda x: sum((x[others] - x for others in heard), start=jnp.zeros_like(x))  # noqa: E731
        return map_floats(of_leaf, tree)
    receivers = jax.lax.broadcasted_iota(jnp.int32, heard.shape, 1)
    return _summed(_from_heard, tree, heard, heard, receivers, mesh=mesh, axis=axis)


def pulls_of_senders(
    tree: Params, receivers: Int[Array, "draws agents"], mesh: Mesh | None, axis: str
) -> Params:
    r"""How far agents are from those that send to them, summed over the draws d and senders l.

    .. math:: \sum_d \sum_{l : \, r_d(l) = j} (x^l - x^j)
    """
    receivers = jnp.asarray(receivers, jnp.int32)
    if mesh is None or not is_divided(mesh, axis):

        def of_leaf(x: Array) -> Array:
            pulls = jnp.zeros_like(x)
            for receiver in receivers:
                pulls = pulls.at[receiver].add(x - x[receiver])
            return pulls

        return map_floats(of_leaf, tree)
    senders = jax.lax.broadcasted_iota(jnp.int32, receivers.shape, 1)
    return _summed(_from_senders, tree, receivers, senders, receivers, mesh=mesh, axis=axis)


def _from_heard(own: Array, other: Array, mine: Array, theirs: Array, heard: Array) -> Array:
    size, moved = len(own), jnp.zeros_like(own)
    for draw in jax.lax.dynamic_slice_in_dim(heard, mine, size, axis=1) - theirs:
        here = (draw >= 0) & (draw < size)
        pull = other[jnp.clip(draw, 0, size - 1)] - own
        moved += jnp.where(along_agents(here, own), pull, 0)
    return moved


def _from_senders(own: Array, other: Array, mine: Array, theirs: Array, receivers: Array) -> Array:
    size, moved = len(own), jnp.zeros_like(own)
    for draw in jax.lax.dynamic_slice_in_dim(receivers, theirs, size, axis=1) - mine:
        here = (draw >= 0) & (draw < size)
        pull = other - own[jnp.clip(draw, 0, size - 1)]
        # An index beyond the last agent drops what is for other devices.
        moved = moved.at[jnp.where(here, draw, size)].add(pull, mode="drop")
    return moved


def _summed(
    addend: _Addend,
    tree: Params,
    draws: Int[Array, "draws agents"],
    senders: Int[Array, "draws agents"],
    receivers: Int[Array, "draws agents"],
    *,
    mesh: Mesh,
    axis: str,
) -> Params:
    """The sums of what an agent's device makes of all blocks that are wanted there."""
    size, num_devices = block_size(draws.shape[1], mesh, axis=axis), mesh.shape[axis]
    distances = (senders // size - receivers // size) % num_devices
    wanted = jnp.zeros(num_devices, bool).at[distances].set(True)

    def of_device(own: list[Array], wanted: Bool[Array, " devices"], draws: Array) -> list[Array]:
        here = jax.lax.axis_index(axis)

        def added(moved: list[Array], others: list[Array], there: Array) -> list[Array]:
            return [
                m + addend(x, other, here * size, there * size, draws)
                for m, x, other in zip(moved, own, others, strict=True)
            ]

        def visited(moved: list[Array], distance: int) -> list[Array]:
            links = [((d + distance) % num_devices, d) for d in range(num_devices)]
            others = [jax.lax.ppermute(x, axis, links) for x in own]
            return added(moved, others, (here + distance) % num_devices)

        moved = added([jnp.zeros_like(x) for x in own], own, here)
        for k in range(1, num_devices):
            moved = jax.lax.cond(wanted[k], lambda m, k=k: visited(m, k), lambda m: m, moved)
        return moved

    by_device, everywhere = PartitionSpec(axis), PartitionSpec()
    on_devices = jax.jit(
        jax.shard_map(
            of_device,
            mesh=mesh,
            in_specs=(by_device, everywhere, everywhere),
            out_specs=by_device,
            axis_names={axis},
            check_vma=False,
        )
    )
    return map_floats_together(lambda leaves: on_devices(leaves, wanted, draws), tree)
