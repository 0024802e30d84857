"""Agents' data on the device, and the order in which each agent walks through its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from cdjax._checks import check_count, check_whole

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
    partition: Sequence[Int[np.ndarray, " _"]],
    *,
    longest: int | None = None,
) -> AgentData:
    """Lays out a partitioned data set with the agent axis in front.

    Args:
        images: all images, uint8, shape (n, H, W, C).
        labels: all labels, shape (n,).
        partition: each agent's indices, see :func:`cdjax.data.partition`; or of some agents, for
            the device that holds them.
        longest: the samples of the agent that has most, where ``partition`` may lack it.

    Returns:
        NumPy arrays of shape (N, n_max, H, W, C) and (N, n_max).

    Raises:
        ValueError: if an agent has no samples, or one that does not exist.
    """
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images, but {len(labels)} labels; give as many")
    sizes = np.array([len(subset) for subset in partition])
    _check_none_empty(sizes)
    for agent, subset in enumerate(partition):
        if np.min(subset) < 0 or np.max(subset) >= len(labels):
            raise ValueError(
                f"partition gives agent {agent} samples {np.min(subset)} to {np.max(subset)}; "
                f"there are {len(labels)}, numbered from 0"
            )
    rows = np.stack([np.resize(subset, longest or sizes.max()) for subset in partition])
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
    permutation after another; a batch may straddle two. The order is a function of seed, sizes and
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

    Raises:
        ValueError: if the batch size or an agent's number of samples is below 1.
    """
    check_whole("batch_size", batch_size)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    check_count("first_step", first_step, low=0)
    check_count("num_steps", num_steps, low=0)
    check_count("seed", seed, low=0)
    sizes = np.asarray(sizes)
    _check_none_empty(sizes)
    start, stop = first_step * batch_size, (first_step + num_steps) * batch_size
    indices = np.empty((len(sizes), stop - start), np.int32)
    # Agents with equally many samples together: a generator each would take 1 s for 10,000 agents.
    for size in np.unique(sizes).tolist():
        agents = np.flatnonzero(sizes == size)
        in_order = np.tile(np.arange(size, dtype=np.int32), (len(agents), 1))
        for lap in range(start // size, -(-stop // size)):
            orders = np.random.default_rng([seed, size, lap]).permuted(in_order, axis=1)
            first, last = max(start, lap * size), min(stop, (lap + 1) * size)
            lap_indices = orders[:, first - lap * size : last - lap * size]
            indices[agents, first - start : last - start] = lap_indices
    return indices.reshape(len(sizes), num_steps, batch_size).swapaxes(0, 1)


def take_batch(data: Any, indices: Int[Array | np.ndarray, "agents batch"]) -> Any:
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
    mean: Float[Array | np.ndarray, " channels"],
    std: Float[Array | np.ndarray, " channels"],
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
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for first in range(0, len(images), _CHUNK):  # counting widens its input eightfold
        chunk = images[first : first + _CHUNK]
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values, shares = np.arange(256), counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.sum(shares * np.square(values - mean[:, None]), axis=1))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)


def _check_none_empty(sizes: np.ndarray) -> None:
    if not len(sizes):
        raise ValueError("there are no agents; deal the samples to at least 1")
    if sizes.min() < 1:
        raise ValueError(f"agent {sizes.argmin()} has no samples; deal at least 1 to every agent")
