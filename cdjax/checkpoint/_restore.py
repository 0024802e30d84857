"""Finding the last checkpoint that is undamaged, and reading a state."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cdjax._checks import check_count
from cdjax.checkpoint._integrity import damage_in
from cdjax.checkpoint._save import (
    host_barriers,
    leaf_types,
    read_notes,
    steps,
    with_arrays,
    without_empty,
)


class Found(NamedTuple):
    """The last undamaged checkpoint, its notes, and by step what is wrong with each later one."""

    step: int
    notes: Any
    damaged: Mapping[int, str]


def find(folder: str | os.PathLike[str]) -> Found | None:
    """Finds the last undamaged checkpoint.

    Args:
        folder: the folder of the checkpoints; it need not exist.

    Returns:
        Its step, its notes, and the damaged checkpoints after it; None if there are no checkpoints.

    Raises:
        ValueError: if there are checkpoints, but all of them are damaged.

    Example: ``assert cdjax.checkpoint.find("no/such/folder") is None``
    """
    damaged = {}
    for step in reversed(steps(folder)):
        path = Path(folder, str(step))
        if not (damage := damage_in(path)):
            return Found(step, read_notes(path)["notes"], damaged)
        damaged[step] = damage
    if damaged:
        list_of_damage = "; ".join(f"{step}: {damage}" for step, damage in damaged.items())
        raise ValueError(f"{folder} has only damaged checkpoints ({list_of_damage}); start afresh")
    return None


def restore(
    folder: str | os.PathLike[str], step: SupportsIndex, *, like: Any, partial: bool = False
) -> Any:
    """Reads a state, or a part of one.

    Args:
        folder: the folder of the checkpoints.
        step: the step of the checkpoint, see :func:`find`.
        like: a state of the same structure, shapes and dtypes, or its ``jax.eval_shape``. Each leaf
            gets the sharding of its counterpart, whatever its sharding was when it was saved. Bare
            numbers come back as arrays.
        partial: whether ``like`` may lack leaves of the checkpoint, which are then not read: for
            the parameters of a training state, ``{"params": params}``.

    Returns:
        The state, bit by bit as it was saved, with the structure of ``like``.

    Raises:
        ValueError: if there is no such checkpoint, if it is damaged, or if a leaf is missing, new,
            or of another shape or dtype.

    Example::

        with cdjax.checkpoint.writing("saved") as checkpoints:
            cdjax.checkpoint.save(checkpoints, 100, params)
        params = cdjax.checkpoint.restore("saved", 100, like=params)
    """
    check_count("step", step, low=0)
    like = with_arrays(like)
    path = Path(folder, str(int(step))).absolute()
    if int(step) not in (there := steps(folder)):
        found = f"it has {', '.join(map(str, there))}" if there else "it has none at all"
        raise ValueError(f"{folder} has no checkpoint {step}; {found}")
    if damage := damage_in(path):
        raise ValueError(f"checkpoint {path} is damaged: {damage}; take another step of {folder}")
    saved, wanted = read_notes(path)["leaves"], leaf_types(like)
    # Compared here, since Orbax casts a leaf of another dtype silently, and its messages about
    # other mismatches have many lines.
    for name in wanted if partial else [*saved, *wanted]:
        if saved.get(name) != wanted.get(name):
            remedy = "build the state as it was when it was saved"
            if name not in wanted:
                remedy += ", or read a part of it with partial=True"
            raise ValueError(
                f"leaf '{name}' is {saved.get(name, 'missing')} in checkpoint {path}, but "
                f"{wanted.get(name, 'missing')} in the state to fill; {remedy}"
            )
    abstract = jax.tree.map(
        lambda x: ocp.utils.to_shape_dtype_struct(_with_data(x)), without_empty(like)
    )
    args = ocp.args.PyTreeRestore(
        abstract,
        ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=partial,
    )
    handler = ocp.PyTreeCheckpointHandler(**host_barriers())
    with contextlib.closing(ocp.Checkpointer(handler, **host_barriers())) as reader:
        restored = reader.restore(path / "state", args)
    return jax.tree.map(lambda x, read: read if x.size else _empty(x), like, restored)


def _empty(leaf: Any) -> Any:
    """An array of size 0 like another, or like its shape and dtype."""
    if isinstance(leaf, np.ndarray):
        return np.empty(leaf.shape, leaf.dtype)
    return jax.device_put(jnp.empty(leaf.shape, leaf.dtype), leaf.sharding)


def _with_data(leaf: Any) -> Any:
    """Random keys in place of their shape and dtype, which Orbax takes for those of their data."""
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    if is_shape and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.device_put(jnp.empty(leaf.shape, leaf.dtype), leaf.sharding)
    return leaf
