"""Agents' data on the device, and the order in which each agent goes through its own samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from cdjax._checks import check_count, check_indices
from cdjax.data._own import deal
from cdjax.data._partition import check_all_have_samples

_REMEDY = "deal at least 1 to every agent"
# Images counted at a time by channel_statistics: np.bincount widens them to 8 bytes per pixel.
_CHUNK = 4096


class AgentData(NamedTuple):
    """Every agent's own samples, with a leading agent axis.

    Agents that have fewer samples than the largest one are padded with repeats of their own. The
    indices of :func:`batch_indices` never reach the padding.
    """

    images: UInt8[Array | np.ndarray, "agents longest height width channels"]
    labels: Int[Array | np.ndarray, "agents longest"]


def stack_agents(
    images: UInt8[np.ndarray, "samples height width channels"],
    labels: Int[np.ndarray, " samples"],
    *,
    partition: Sequence[Int[np.ndarray, " _"]],
    longest: int | None = None,
) -> AgentData:
    """Lays out a partitioned data set with a leading agent axis.

    Args:
        images: all images, uint8, shape (n, H, W, C).
        labels: all labels, shape (n,).
        partition: each agent's indices, see :func:`cdjax.data.partition`; or those of some agents,
            for the device that holds them.
        longest: the number of samples of the largest agent n_max, needed where ``partition`` holds
            only some of the agents.

    Returns:
        NumPy arrays of shape (N, n_max, H, W, C) and (N, n_max).

    Raises:
        ValueError: if an agent has no samples, or an index does not exist.

    Example::

        images, labels = np.zeros((6, 8, 8, 1), np.uint8), np.arange(6)
        partition = [np.array([0, 2, 4]), np.array([1, 3])]
        agent_data = cdjax.data.stack_agents(images, labels, partition=partition)
    """
    if np.ndim(labels) != 1:
        raise ValueError(f"labels have shape {np.shape(labels)}; give one per image, shape (n,)")
    if len(images) != len(labels):
        raise ValueError(
            f"there are {len(images)} images, but {len(labels)} labels; give one per image"
        )
    samples = AgentData(images, labels.astype(np.int32))
    return deal(samples, partition, longest=longest)[0]


def batch_indices(
    sizes: Sequence[int] | Int[np.ndarray, " agents"],
    batch_size: int,
    *,
    first_step: int,
    num_steps: int,
    seed: int,
) -> Int[np.ndarray, "steps agents batch"]:
    """The samples that each agent takes in each of a number of consecutive steps.

    Every agent goes through random permutations of its own samples, one permutation after another,
    so it sees each sample once per epoch of its own; a batch may contain the end of one permutation
    and the start of the next. The order depends only on the seed, the sizes and the position. So a
    run may be cut into calls in any way, and a run resumed at step k replays the same batches.

    Args:
        sizes: the number of samples of each agent, shape (N,).
        batch_size: the number of samples per agent and step.
        first_step: the first of the steps, counted from 0.
        num_steps: the number of steps.
        seed: of the random order.

    Returns:
        Indices into each agent's own samples, int32, shape (num_steps, N, batch_size).

    Raises:
        ValueError: if the batch size or an agent's number of samples is below 1.

    Example: ``indices = cdjax.data.batch_indices(sizes, 4, first_step=0, num_steps=5, seed=0)``
    """
    check_count("batch_size", batch_size, low=1)
    check_count("first_step", first_step, low=0)
    check_count("num_steps", num_steps, low=0)
    check_count("seed", seed, low=0)
    sizes = np.asarray(sizes)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu":
        raise ValueError(
            f"sizes are {sizes.dtype} of shape {sizes.shape}; give each agent's number of samples, "
            "shape (N,)"
        )
    check_all_have_samples(sizes, _REMEDY)
    # Positions in the endless stream of permutations, the same for all agents.
    start, stop = first_step * batch_size, (first_step + num_steps) * batch_size
    indices = np.empty((len(sizes), stop - start), np.int32)
    # One generator for all agents with equally many samples: one per agent would take 1 s for
    # 10,000 agents. Row by row, permuted draws a different order for each of them.
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
    """Gathers every agent's batch; may be called inside ``jit``.

    Args:
        data: a stacked pytree, such as an :class:`AgentData`, leaves of shape ``(N, n_max, ...)``.
        indices: of each agent's samples, shape (N, batch).

    Returns:
        The tree with leaves of shape ``(N, batch, ...)``, dtypes kept.

    Raises:
        ValueError: if shapes do not fit, or, outside of ``jit``, an index does not exist.

    Example: ``first_two = cdjax.data.take_batch(x, np.full((num_agents, 2), [0, 1]))``
    """
    for leaf in jax.tree.leaves(data):
        if np.ndim(leaf) < 2 or np.ndim(indices) != 2 or len(indices) != len(leaf):
            raise ValueError(
                f"indices have shape {np.shape(indices)}, but a leaf of the data {np.shape(leaf)}; "
                "give each agent's samples, indices (N, batch) into leaves (N, n_max, ...)"
            )
        check_indices("indices", indices, leaf.shape[1], "samples")
    return jax.tree.map(lambda x: jax.vmap(lambda own, i: own[i])(x, indices), data)


def normalise(
    images: UInt8[Array, "*batch height width channels"],
    *,
    mean: Float[Array | np.ndarray, " channels"],
    std: Float[Array | np.ndarray, " channels"],
) -> Float[Array, "*batch height width channels"]:
    """Turns uint8 images into float32 images of zero mean and unit variance per channel.

    Args:
        images: shape (..., H, W, C).
        mean: of each channel, in units of 0..255.
        std: of each channel, in units of 0..255.

    Returns:
        ``(images - mean) / std``, float32.

    Raises:
        ValueError: if there is not one mean and deviation per channel.
    """
    for name, numbers in (("mean", mean), ("std", std)):
        if np.shape(numbers) != images.shape[-1:]:
            raise ValueError(
                f"{name} has shape {np.shape(numbers)}, but the images {images.shape}; give one "
                f"number per channel, shape {images.shape[-1:]}"
            )
    channels = (1,) * (images.ndim - 1) + (-1,)
    return (images.astype(jnp.float32) - mean.reshape(channels)) / std.reshape(channels)


def channel_statistics(
    images: UInt8[np.ndarray, "samples height width channels"],
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
    """The mean and standard deviation of each channel.

    Args:
        images: uint8, shape (n, H, W, C).

    Returns:
        Both float32, shape (C,), in units of 0..255; the deviation of a constant channel is 1, so
        that :func:`normalise` does not divide by zero.

    Example: ``mean, std = cdjax.data.channel_statistics(np.ones((9, 4, 4, 3), np.uint8))``
    """
    # From the counts of the 256 values: exact sums, without a float copy of all images.
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for first in range(0, len(images), _CHUNK):
        chunk = images[first : first + _CHUNK]
        for channel, count in enumerate(counts):
            count += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values, shares = np.arange(256), counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(np.sum(shares * np.square(values - mean[:, None]), axis=1))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
