"""Agents' data on the device, and the order in which each agent walks through its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, UInt8

_CHUNK = 4096


class AgentData(NamedTuple):
    """Every agent's own samples behind the agent axis.

    Agents with fewer samples than the largest are padded by repeats of their own; the indices of
    :func:`batch_indices` never reach the padding.
    """

    images: UInt8[Array | np.ndarray, "agents longest height width channels"]
    labels: Int[Array | np.ndarray, "agents longest"]


def stack_agents(
    images: UInt8[np.ndarray, "samples height width channels"],
    labels: Int[np.ndarray, " samples"],
    parts: Sequence[Int[np.ndarray, " subset"]],
) -> AgentData:
    """Lays out a partitioned data set with the agent axis in front.

    Args:
        images: all images, uint8, shape (n, H, W, C).
        labels: all labels, shape (n,).
        parts: each agent's indices, see :func:`partition`; none empty.

    Returns:
        NumPy arrays of shape (N, n_max, H, W, C) and (N, n_max).
    """
    longest = max(map(len, parts))
    rows = np.stack([np.resize(part, longest) for part in parts])
    return AgentData(images[rows], labels[rows].astype(np.int32))


def batch_indices(
    sizes: Sequence[int] | Int[np.ndarray, " agents"],
    batch_size: int,
    *,
    first_step: int,
    num_steps: int,
    seed: int,
) -> Int[np.ndarray, "steps agents batch"]:
    """Which of its samples each agent takes in each of a run of steps.

    Every agent walks through random permutations of its own samples without replacement, one
    permutation after another; a batch may straddle two. The order is a function of seed, agent and
    position alone, so any way of cutting a run into calls gives the same batches, and a run resumed
    at step k replays it.

    Args:
        sizes: the number of samples of each agent, shape (N,).
        batch_size: samples an agent takes in a step.
        first_step: the first of the steps.
        num_steps: how many steps.
        seed: of the order.

    Returns:
        Indices into each agent's own samples, int32, shape (num_steps, N, batch_size).
    """
    start, stop = first_step * batch_size, (first_step + num_steps) * batch_size
    indices = np.empty((len(sizes), stop - start), np.int32)
    for agent, size in enumerate(map(int, sizes)):
        for lap in range(start // size, -(-stop // size)):
            order = np.random.default_rng([seed, agent, lap]).permutation(size)
            left, right = max(start, lap * size), min(stop, (lap + 1) * size)
            indices[agent, left - start : right - start] = order[
                left - lap * size : right - lap * size
            ]
    return indices.reshape(len(sizes), num_steps, batch_size).swapaxes(0, 1)


def take_batch(data: Any, indices: Int[Array, "agents batch"]) -> Any:
    """Gathers every agent's batch; runs inside of jit.

    Args:
        data: a stacked pytree, leaves of shape ``(N, n_max, ...)``, an :class:`AgentData` or other.
        indices: each agent's samples, shape (N, batch).

    Returns:
        The tree with leaves of shape ``(N, batch, ...)``, dtypes kept.
    """
    return jax.tree.map(lambda x: jax.vmap(lambda own, i: own[i])(x, indices), data)


def normalise(
    images: UInt8[Array, "*batch height width channels"],
    mean: Float[np.ndarray, " channels"],
    std: Float[np.ndarray, " channels"],
) -> Float[Array, "*batch height width channels"]:
    """Turns uint8 images into float32 ones of zero mean and unit variance a channel.

    Args:
        images: shape (..., H, W, C).
        mean: of each channel, in units of 0..255.
        std: of each channel, in units of 0..255.

    Returns:
        ``(images - mean) / std``, float32.
    """
    channels = (1,) * (images.ndim - 1) + (-1,)
    return (images.astype(jnp.float32) - mean.reshape(channels)) / std.reshape(channels)


def channel_statistics(
    images: UInt8[np.ndarray, "samples height width channels"],
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
    """The mean and standard deviation of each channel.

    Args:
        images: uint8, shape (n, H, W, C).

    Returns:
        Both float32, shape (C,), in units of 0..255; the deviation of a constant channel is 1.
    """
    num_pixels = images.size // images.shape[-1]
    total = np.zeros(images.shape[-1])
    squares = np.zeros(images.shape[-1])
    for first in range(0, len(images), _CHUNK):  # a float copy of the whole set would not fit
        chunk = images[first : first + _CHUNK].astype(np.float64)
        total += chunk.sum(axis=(0, 1, 2))
        squares += np.square(chunk).sum(axis=(0, 1, 2))
    mean = total / num_pixels
    std = np.sqrt(np.maximum(squares / num_pixels - mean**2, 0))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
