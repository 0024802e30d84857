"""Mixing of a random share of all numbers per step.

Beton, Reed, Howes, Cheema, Baioumy, *Improving the Efficiency of Distributed Training using Sparse
Parameter Averaging*, 2025 (SPARTA; authors and title not verified).
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from cdjax._checks import check_key, check_mixer, check_scalar, check_step
from cdjax._trees import map_floats, map_floats_together
from cdjax._types import Mixer, Params


def masked(mix: Mixer, fraction: float, key: PRNGKeyArray, *, partition: bool = False) -> Mixer:
    r"""Mixes a random share of all numbers per step, and leaves the others as they are.

    .. math:: x \leftarrow m_k \circ \text{mix}(x) + (1 - m_k) \circ x, \quad
              m_k \sim \mathrm{Bernoulli}(p)

    The mask is the same for all agents and follows from the step, so that only the values in it,
    a share p of all bytes, need to be sent. On average it is mixing by :math:`(1 - p) I + p \Pi`.
    With ``partition`` only they *are* mixed, and sent: every ⌈1/p⌉ steps the numbers of each leaf
    are dealt at random to as many steps in equal parts, and each is mixed exactly once. Without,
    where the number of values varies, the whole tree is mixed.

    Args:
        mix: the mixer; it is given the step.
        fraction: p in (0, 1]; 1 is the mixer itself.
        key: of all draws.
        partition: whether each number has its turn, in place of a fresh mask in every step.

    Returns:
        A mixer; it needs the step. It accepts mixers that treat numbers one by one, not those
        that look at whole agents, such as clipped gossip.

    Raises:
        ValueError: if the fraction is out of its range.

    Example: ``mix = cdjax.mixing.masked(cdjax.mixing.auto(topology), 0.005, key)``

    Reference: SPARTA, github.com/exo-explore/gym, sparta.py.
    """
    check_mixer(mix)
    check_scalar("fraction", fraction, low=0, high=1, low_open=True)
    check_key(key)
    if fraction == 1:
        return mix
    num_parts = math.ceil(1 / fraction - 1e-9)

    def mix_masked(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step = check_step(step, "masked")
        step_key = jax.random.fold_in(key, step)
        mixed, numbers = mix(tree, step), itertools.count()

        def leaf(x: Array, y: Array) -> Array:
            leaf_key = jax.random.fold_in(step_key, next(numbers))
            mask = jax.random.bernoulli(leaf_key, fraction, x.shape[1:])
            return jnp.where(mask[None], y, x)

        return map_floats(leaf, tree, mixed)

    def mix_part(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step = check_step(step, "masked")
        round_key, part = jax.random.fold_in(key, step // num_parts), step % num_parts

        def of_step(leaves: list[Array]) -> list[Array]:
            flat = [x.reshape(len(x), -1) for x in leaves]
            places = [
                _places(round_key, i, size=x.shape[1], part=part, num_parts=num_parts)
                for i, x in enumerate(flat)
            ]
            # A place beyond the end, of a part that is not full, reads the last number and writes
            # nothing.
            mixed = mix([x[:, at] for x, at in zip(flat, places, strict=True)], step)
            flat = [
                x.at[:, at].set(y, mode="drop")
                for x, at, y in zip(flat, places, mixed, strict=True)
            ]
            return [y.reshape(x.shape) for x, y in zip(leaves, flat, strict=True)]

        return map_floats_together(of_step, tree)

    return mix_part if partition else mix_masked


def _places(
    round_key: PRNGKeyArray, leaf: int, *, size: int, part: int | Int[Array, ""], num_parts: int
) -> Int[Array, " length"]:
    """Where the numbers of a part of a leaf stand; ``size``, beyond its end, where none is left."""
    length = -(-size // num_parts)
    order = jax.random.permutation(jax.random.fold_in(round_key, leaf), size)
    order = jnp.pad(order, (0, num_parts * length - size), constant_values=size)
    return jax.lax.dynamic_slice_in_dim(order, part * length, length)
