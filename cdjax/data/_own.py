"""Data of one's own: any pytree of samples, and any iterators of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from cdjax.data._partition import check_all_have_samples


def deal(
    samples: Any, parts: Sequence[Int[np.ndarray, " _"]], *, longest: int | None = None
) -> tuple[Any, Int[np.ndarray, " agents"]]:
    """Gives every agent its own samples, stacked along a leading agent axis.

    Agents that have fewer samples than the largest one are padded with repeats of their own.
    :func:`batch_indices` never reaches the padding.

    Args:
        samples: a pytree of arrays whose leaves lead with the samples, shape (n, ...).
        parts: each agent's indices, see :func:`cdjax.data.partition`; or those of some agents, for
            the device that holds them.
        longest: the number of samples of the largest agent n_max, needed where ``parts`` holds only
            some of the agents.

    Returns:
        The tree, leaves of shape (N, n_max, ...), and how many samples each agent has, shape (N,).

    Raises:
        ValueError: if leaves hold different numbers of samples, an agent has none, or an index does
            not exist.

    Example::

        samples = {"tokens": np.zeros((100, 32), np.int32), "weight": np.ones(100)}
        stacked, sizes = cdjax.data.deal(samples, cdjax.data.partition(100, 8))
        indices = cdjax.data.batch_indices(sizes, 4, first_step=0, num_steps=1, seed=0)
        batch = cdjax.data.take_batch(stacked, indices[0])  # tokens of shape (8, 4, 32)
    """
    leaves = jax.tree.leaves_with_path(samples)
    for path, x in leaves:
        if not np.ndim(x):
            raise ValueError(
                f"leaf {jax.tree_util.keystr(path)} is {x!r}; every leaf leads with the samples, "
                "give arrays"
            )
    lengths = {jax.tree_util.keystr(path): len(x) for path, x in leaves}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"leaves lead with different numbers of samples: {lengths}")
    num_samples = next(iter(lengths.values()))
    sizes = np.array([len(part) for part in parts])
    check_all_have_samples(sizes, "deal at least 1 to every agent")
    if longest is not None and longest < sizes.max():
        raise ValueError(
            f"longest is {longest}, but an agent has {sizes.max()} samples; give at least that"
        )
    for agent, part in enumerate(parts):
        found = np.asarray(part)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise ValueError(
                f"partition gives agent {agent} {found.dtype} of shape {found.shape}; give the "
                "indices of its samples, shape (n,), as np.flatnonzero makes of a mask"
            )
        if np.min(part) < 0 or np.max(part) >= num_samples:
            raise ValueError(
                f"partition gives agent {agent} samples {np.min(part)} to {np.max(part)}; "
                f"there are {num_samples}, numbered from 0"
            )
    rows = np.stack([np.resize(part, longest or sizes.max()) for part in parts])
    return jax.tree.map(lambda x: x[rows], samples), sizes


def zip_agents(iterators: Iterable[Iterable[Any]]) -> Iterator[Any]:
    """Stacks the next batch of every agent, from as many iterators as there are agents.

    The iterators may be of any kind: NumPy arrays, tf.data, grain, PyTorch's loaders. Each must
    read its own agent's samples. A shuffled global batch that is cut into N pieces is not private:
    every agent would come to see nearly all samples.

    Args:
        iterators: one for each agent; their batches are pytrees of arrays of equal shapes.

    Yields:
        Pytrees with leaves of shape (N, batch, ...), until the shortest iterator ends.

    Raises:
        ValueError: if the batches of two agents have different shapes.

    Example::

        own = [np.split(part, 5) for part in cdjax.data.partition(80, 8)]  # 5 batches of 2
        for batch in cdjax.data.zip_agents(own):
            assert batch.shape == (8, 2)
    """
    for batches in zip(*iterators, strict=False):
        shapes = [jax.tree.map(np.shape, batch) for batch in batches]
        for agent, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise ValueError(
                    f"the batch of agent {agent} has shapes {shape}, that of agent 0 {shapes[0]}; "
                    "drop the last batch of an iterator where it is smaller"
                )
        yield jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
