"""Saving: Orbax writes a state in the background, under a temporary name until all is written.

``ocp.CheckpointManager`` (0.12.8, tried) lacks a hook to write checksums under the temporary name,
refuses a step that exists (that of a damaged checkpoint, say), deletes folders under their own
names, so that a kill leaves halves, and no longer deletes the old ones after a save has failed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cdjax._checks import check_arrays, check_count
from cdjax._json import as_json
from cdjax.checkpoint._errors import check_room, raised_errors_not_logged, write_errors
from cdjax.checkpoint._integrity import write_sums

_NOTES = "notes.json"
_ABANDONED = ".orbax-checkpoint-tmp"
_DELETED = ".deleted"
# Bytes on disk in addition to the arrays' own: the notes, and what Orbax writes about the arrays.
_MARGIN = 1 << 20


class Checkpoints(NamedTuple):
    """A folder open for saving, see :func:`writing`."""

    folder: Path  # absolute
    keep: int
    writer: ocp.AsyncCheckpointer  # holds the threads of a save in progress


@contextlib.contextmanager
def writing(folder: str | os.PathLike[str], *, keep: int = 3) -> Iterator[Checkpoints]:
    """Opens a folder for saving; leaving the context finishes the last save.

    One run at a time may write into a folder. What killed saves have left behind is removed.

    Args:
        folder: the folder of the checkpoints; the first save makes it.
        keep: the number of last checkpoints to keep; the one of the highest score is kept too.

    Yields:
        The first argument of :func:`save`.

    Raises:
        ValueError: if ``keep`` is below 1.
        OSError: on leaving, if the last save failed.

    Example::

        with cdjax.checkpoint.writing("saved", keep=2) as checkpoints:
            cdjax.checkpoint.save(checkpoints, 100, params, notes={"seed": 0}, score=0.93)
        assert cdjax.checkpoint.steps("saved") == [100]
    """
    check_count("keep", keep, low=1)
    folder = Path(folder).absolute()
    if not jax.process_index():
        for ending in (_ABANDONED, _DELETED):
            for path in folder.glob(f"*{ending}"):
                shutil.rmtree(path, ignore_errors=True)
    checkpoints = Checkpoints(folder, keep, _writer())
    try:
        with raised_errors_not_logged("orbax"):
            yield checkpoints
            wait(checkpoints)
            _prune(checkpoints)
    finally:
        # wait has raised the error of a failed save, or the error that leads here hides it.
        with contextlib.suppress(Exception):
            checkpoints.writer.close()


def save(
    checkpoints: Checkpoints,
    step: SupportsIndex,
    state: Any,
    *,
    notes: Any = None,
    score: SupportsFloat | None = None,
) -> None:
    """Saves a state in the background.

    The state is copied before the call returns, so a loop that donates it may continue at once. The
    call first waits for a save still in progress, then deletes the checkpoints beyond those to
    keep. A checkpoint of the same step is replaced.

    Args:
        checkpoints: an open folder, see :func:`writing`.
        step: the step of the state, a whole number of at least 0; it names the checkpoint.
        state: a pytree of arrays, sharded or not, and numbers, such as a
            :class:`cdjax.training.TrainState` or one of Flax.
        notes: anything that JSON can represent, stored with the state. Numbers that are not finite
            come back as None.
        score: the quality of the state, one number; the checkpoint of the highest score is kept.
            One that is not finite counts as none.

    Raises:
        ValueError: if an argument is out of its range, a leaf is no array, or the notes are no
            JSON; nothing is written then.
        OSError: if this save or the one before cannot be written, with the reason. Earlier
            checkpoints remain.
    """
    check_count("step", step, low=0)
    described = {"score": _finite(score), "notes": _plain(notes)}
    state = with_arrays(state)
    described |= {"leaves": leaf_types(state)}
    state = without_empty(state)
    wait(checkpoints)
    _prune(checkpoints)
    with write_errors(checkpoints.folder):
        checkpoints.folder.mkdir(parents=True, exist_ok=True)
        check_room(checkpoints.folder, sum(x.nbytes for x in jax.tree.leaves(state)) + _MARGIN)
        items = _Items(state=ocp.args.PyTreeSave(state), notes=ocp.args.JsonSave(described))
        checkpoints.writer.save(checkpoints.folder / str(int(step)), items, force=True)


def wait(checkpoints: Checkpoints) -> None:
    """Waits until the last save is on disk.

    Args:
        checkpoints: an open folder, see :func:`writing`.

    Raises:
        OSError: if it could not be written, with the reason.
    """
    with write_errors(checkpoints.folder):
        checkpoints.writer.wait_until_finished()


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """The steps of all checkpoints, damaged or not, in ascending order.

    Args:
        folder: the folder of the checkpoints; it need not exist.

    Example: ``assert cdjax.checkpoint.steps("no/such/folder") == []``
    """
    if not Path(folder).is_dir():
        return []
    names = [path.name for path in Path(folder).iterdir()]
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))


def with_arrays(state: Any) -> Any:
    """The state with bare numbers as arrays, such as the step of a fresh Flax ``TrainState``.

    They get the dtype that they have once a jitted step has returned them.
    """
    check_arrays(state)

    def as_array(path: jax.tree_util.KeyPath, leaf: Any) -> Any:
        if isinstance(leaf, np.generic):
            return np.asarray(leaf)
        try:
            return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
        except OverflowError as error:
            dtype = jnp.result_type(int)
            raise ValueError(
                f"leaf '{_name(path)}' is {leaf}, which {dtype} cannot hold; keep it as np.int64"
            ) from error

    return jax.tree.map_with_path(as_array, state)


def without_empty(state: Any) -> Any:
    """The state with None for arrays of size 0, which Orbax cannot save: their shape says all."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else None, state)


def leaf_types(state: Any) -> dict[str, str]:
    """The dtype and the shape of every leaf, by its path: ``{"params/bias": "float32[8, 3]"}``."""
    return {
        _name(path): f"{leaf.dtype}{[*leaf.shape]}"
        for path, leaf in jax.tree.leaves_with_path(state)
    }


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _finite(score: Any) -> float | None:
    """The score as a number of Python; None if it is not finite."""
    if score is None:
        return None
    array = np.asarray(score)
    if array.ndim or not (array.dtype.kind in "biuf" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise ValueError(f"score is {score!r}; give one number, or None")
    return float(array) if math.isfinite(array) else None


def _plain(notes: Any) -> Any:
    """The notes as JSON gives them back."""
    try:
        return as_json(notes)
    except (TypeError, ValueError) as error:
        remedy = "give numbers of Python, strings, lists and dicts"
        raise ValueError(f"notes are no JSON: {error}; {remedy}") from error


def read_notes(checkpoint: Path) -> dict[str, Any]:
    """What :func:`save` has written beside the state: score, notes, and leaves."""
    return json.loads((checkpoint / "notes" / _NOTES).read_text())


def host_barriers() -> dict[str, Any]:
    """Orbax's option by which processes wait for each other on the host.

    By default they wait in a collective operation on their devices. The writer's thread would start
    it at any moment between those of the training loop, and their order must be the same in all
    processes.
    """
    everyone = set(range(jax.process_count()))
    options = ocp.options.MultiprocessingOptions(active_processes=everyone)
    return {"multiprocessing_options": options}


def _writer() -> ocp.AsyncCheckpointer:
    barriers = host_barriers()
    # Trained numbers hardly compress. Trying to takes half of a save's time, and memory in each
    # thread that does.
    arrays = ocp.PyTreeCheckpointHandler(use_compression=False, **barriers)
    notes = ocp.JsonCheckpointHandler(_NOTES, **barriers)
    options = ocp.CompositeOptions(**barriers)
    handler = _SummingHandler(state=arrays, notes=notes, composite_options=options)
    return ocp.AsyncCheckpointer(handler, **barriers)


class _SummingHandler(ocp.CompositeCheckpointHandler):
    """Orbax's handler, which also writes the checksums.

    This must happen between writing and renaming, so that no folder without checksums ever has the
    name of a checkpoint; and Orbax calls only handlers then.
    """

    def finalize(self, directory: Any) -> None:
        super().finalize(directory)
        folder = Path(directory)
        # Only the files of the two items: Orbax writes into its own at the top once more.
        write_sums(folder, folder.glob("*/**/*"))


@ocp.args.register_with_handler(_SummingHandler, for_save=True, for_restore=True)
class _Items(ocp.args.Composite):
    """Orbax finds the handler by the type of its arguments."""


def _prune(checkpoints: Checkpoints) -> None:
    """Deletes all checkpoints but the last ones and the best one.

    Each loses its name first, so that a kill during the deletion leaves no damaged checkpoint.
    """
    if jax.process_index():
        return
    folder, all_steps = checkpoints.folder, steps(checkpoints.folder)
    scores = {}
    for step in all_steps:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none, or damaged
            score = float(read_notes(folder / str(step))["score"])
            scores |= {step: score} if math.isfinite(score) else {}
    # Of equal scores the earliest, so that no more than one is kept.
    best = max(scores, key=scores.__getitem__, default=None)
    for step in {*all_steps[: -checkpoints.keep]} - {best}:
        doomed = folder / f"{step}{_DELETED}"
        shutil.rmtree(doomed, ignore_errors=True)
        (folder / str(step)).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
