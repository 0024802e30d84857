"""Checkpoints: whole states on disk, saved while training goes on. Orbax lives here alone.

A checkpoint is a folder named after its step. It gets that name when all of it is written, so a
process that dies in the middle of a save leaves nothing that could be taken for a checkpoint. Its
files are summed (CRC-32); one that was cut, garbled or lost afterwards is found out and passed by.

In a run of several processes all call these functions alike, with a folder that all of them see.

It needs ``orbax-checkpoint``, so ``import cdjax`` leaves it out: ``from cdjax import checkpoint``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from cdjax.checkpoint._errors import check_room, errors_told_once, write_errors
from cdjax.checkpoint._integrity import flaw_of, write_sums

_NOTES = "notes.json"
_ABANDONED = ".orbax-checkpoint-tmp"
_DELETED = ".deleted"
# Bytes on the disk beside the arrays' own: the notes, and what Orbax writes about the arrays.
_MARGIN = 1 << 20


class Checkpoints(NamedTuple):
    """A folder open for saving, see :func:`writing`."""

    folder: Path
    keep: int
    writer: ocp.AsyncCheckpointer


class Found(NamedTuple):
    """A whole checkpoint, and those after it that are not, each with what is wrong with it."""

    step: int
    notes: Any
    damaged: Mapping[int, str]


@contextlib.contextmanager
def writing(folder: str | os.PathLike[str], *, keep: int = 3) -> Iterator[Checkpoints]:
    """Opens a folder for saving; on leaving, the last save is finished.

    One process at a time may write into a folder. What saves that were killed left is removed.

    Args:
        folder: where the checkpoints are; the first save makes it.
        keep: how many of the last checkpoints to keep, beside the one of the highest score.

    Yields:
        What :func:`save` takes.

    Raises:
        ValueError: if ``keep`` is below 1.
        OSError: on leaving, if the last save failed.

    Example::

        with checkpoint.writing("run/checkpoints", keep=2) as checkpoints:
            for epoch in range(10):
                state, metrics = loop(state, data, indices, 100)
                checkpoint.save(checkpoints, int(state.step), state)
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; there must be at least 1")
    folder = Path(folder).absolute()
    if not jax.process_index():
        for ending in (_ABANDONED, _DELETED):
            for path in folder.glob(f"*{ending}"):
                shutil.rmtree(path, ignore_errors=True)
    # Trained numbers hardly compress, and to try takes half of a save's time, and memory in every
    # thread that does.
    arrays = ocp.PyTreeCheckpointHandler(use_compression=False, **_together())
    notes = ocp.JsonCheckpointHandler(_NOTES, **_together())
    options = ocp.CompositeOptions(**_together())
    handler = _SummingHandler(state=arrays, notes=notes, composite_options=options)
    writer = ocp.AsyncCheckpointer(handler, **_together())
    checkpoints = Checkpoints(folder, keep, writer)
    try:
        with errors_told_once("orbax"):
            yield checkpoints
            wait(checkpoints)
            _prune(checkpoints)
    finally:
        with contextlib.suppress(Exception):  # told by wait, or hidden by the error that leads here
            writer.close()


def save(
    checkpoints: Checkpoints,
    step: int,
    state: Any,
    notes: Any = None,
    *,
    score: float | None = None,
) -> None:
    """Saves a state in the background.

    The state is copied before the call returns, so a loop that donates it may go on at once. A save
    still in progress is waited for first, and checkpoints beyond those to keep are then deleted.

    Args:
        checkpoints: an open folder, see :func:`writing`.
        step: the checkpoint's name and place in time, at least 0.
        state: a pytree of arrays, sharded ones too, such as :class:`cdjax.training.TrainState`.
        notes: anything that JSON can hold, to lie beside the state.
        score: how good the state is; the checkpoint of the highest is kept.

    Raises:
        OSError: if this or the save before cannot be written, with the reason. What was saved
            before is still there.

    Example::

        checkpoint.save(checkpoints, 100, state, {"seed": 0}, score=test_accuracy)
    """
    wait(checkpoints)
    _prune(checkpoints)
    described = {"score": score, "notes": notes, "leaves": _leaves(state)}
    with write_errors(checkpoints.folder):
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        check_room(checkpoints.folder, sum(x.nbytes for x in jax.tree.leaves(state)) + _MARGIN)
        checkpoints.writer.save(
            checkpoints.folder / str(step),
            _Items(state=ocp.args.PyTreeSave(state), notes=ocp.args.JsonSave(described)),
            force=True,
        )


def wait(checkpoints: Checkpoints) -> None:
    """Waits until the last save is on disk.

    Args:
        checkpoints: an open folder.

    Raises:
        OSError: if it could not be written, with the reason.
    """
    with write_errors(checkpoints.folder):
        checkpoints.writer.wait_until_finished()


def find(folder: str | os.PathLike[str]) -> Found | None:
    """The last checkpoint that is whole.

    Args:
        folder: of checkpoints; it need not exist.

    Returns:
        Its step, its notes, and the damaged ones after it; None if there is none.

    Raises:
        ValueError: if there are checkpoints, but all of them are damaged.

    Example::

        found = checkpoint.find("run/checkpoints")
        state = checkpoint.restore("run/checkpoints", found.step, state)
    """
    damaged = {}
    for step in reversed(steps(folder)):
        flaw = flaw_of(Path(folder, str(step)))
        if not flaw:
            return Found(step, _read_notes(Path(folder, str(step)))["notes"], damaged)
        damaged[step] = flaw
    if damaged:
        flaws = "; ".join(f"{step}: {flaw}" for step, flaw in damaged.items())
        raise ValueError(f"{folder} has no checkpoint that is whole ({flaws}); start afresh")
    return None


def restore(folder: str | os.PathLike[str], step: int, like: Any) -> Any:
    """Reads a state.

    Args:
        folder: of checkpoints.
        step: which, see :func:`find`.
        like: a state of the same structure, shapes and dtypes, or its ``jax.eval_shape``. Each leaf
            comes back with the sharding of its counterpart, whatever the one was that it had.

    Returns:
        The state, bit by bit as it was saved.

    Raises:
        ValueError: if the checkpoint is damaged, or a leaf is missing, new or of another kind.

    Example: ``state = checkpoint.restore("run/checkpoints", 100, jax.eval_shape(make_state))``
    """
    path = Path(folder, str(step)).absolute()
    if flaw := flaw_of(path):
        raise ValueError(f"checkpoint {path} is damaged: {flaw}; take another step of {folder}")
    saved, sought = _read_notes(path)["leaves"], _leaves(like)
    for name in [*saved, *sought]:
        if saved.get(name) != sought.get(name):
            raise ValueError(
                f"leaf '{name}' is {saved.get(name, 'not there')} in checkpoint {path}, but "
                f"{sought.get(name, 'not there')} in the state to fill; build that as it was"
            )
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    wanted = ocp.args.PyTreeRestore(abstract, ocp.checkpoint_utils.construct_restore_args(abstract))
    handler = ocp.PyTreeCheckpointHandler(**_together())
    with contextlib.closing(ocp.Checkpointer(handler, **_together())) as reader:
        return reader.restore(path / "state", wanted)


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """The steps of all checkpoints, damaged or not, rising.

    Args:
        folder: of checkpoints; it need not exist.

    Returns:
        Whole numbers, [] for none.
    """
    if not Path(folder).is_dir():
        return []
    return sorted(int(path.name) for path in Path(folder).iterdir() if path.name.isdecimal())


def _together() -> dict[str, Any]:
    """Orbax's options by which processes wait for each other on the host.

    By default they do on their devices, where another thread trains meanwhile.
    """
    processes = set(range(jax.process_count()))
    return {
        "multiprocessing_options": ocp.options.MultiprocessingOptions(active_processes=processes)
    }


def _leaves(state: Any) -> dict[str, str]:
    """The dtype and the shape of every leaf."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{[*leaf.shape]}"
        for path, leaf in jax.tree.leaves_with_path(state)
    }


class _SummingHandler(ocp.CompositeCheckpointHandler):
    # Orbax calls this on the folder while it still has its temporary name.
    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        folder = Path(directory)
        # The files of the two items: Orbax writes once more into its own of the whole.
        write_sums(folder, folder.glob("*/**/*"))


@ocp.args.register_with_handler(_SummingHandler, for_save=True, for_restore=True)
class _Items(ocp.args.Composite):
    """Orbax finds the handler by the type of its arguments."""


def _read_notes(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "notes" / _NOTES).read_text())


def _prune(checkpoints: Checkpoints) -> None:
    """Deletes all but the last and the best; each loses its name first, whatever happens then."""
    if jax.process_index():
        return
    folder, all_steps = checkpoints.folder, steps(checkpoints.folder)
    best = max(all_steps, key=lambda step: _score(folder / str(step)), default=None)
    for step in all_steps[: -checkpoints.keep]:
        if step != best:
            doomed = folder / f"{step}{_DELETED}"
            shutil.rmtree(doomed, ignore_errors=True)
            (folder / str(step)).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)


def _score(checkpoint: Path) -> float:
    try:
        score = _read_notes(checkpoint)["score"]
    except (OSError, ValueError, KeyError, TypeError):
        score = None
    return float("-inf") if score is None else score
