"""What a run's checkpoints hold beside the state, and which runs may go on from them."""

from __future__ import annotations

import contextlib
import functools
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cdjax import checkpoint, training
from cdjax._json import as_json
from cdjax.topology import FAMILIES
from experiments.run.clock import noted, restored
from experiments.run.config import Run, flat, from_record, replaced
from experiments.run.errors import Diverged, RunEnded, UsageError, blame, flag
from experiments.run.files import (
    checkpoints_of,
    graph_of,
    options_record,
    read_mixing_matrix,
    read_options,
    with_nan,
    with_null,
)
from experiments.run.job import Job
from experiments.run.progress import Progress, beginning
from experiments.run.signals import of_all

# Options that change neither a run's numbers nor what of them is recorded; and the data's folder,
# which may have moved: the data are compared themselves.
_FREE = {
    "epochs", "log_every", "agent_plan", "devices", "coordinator", "num_processes", "process_id",
    "secret_file", "out", "data_dir", "stand_in", "checkpoint_every", "keep_checkpoints", "resume",
    "on_nan", "format", "log", "quiet",
}  # fmt: skip
# What a resumed run does not take over from its beginning.
_OF_A_PROCESS = dict.fromkeys(("coordinator", "num_processes", "process_id", "secret_file"))

# The largest share of its time that training waits for its saves, and how many it makes anyway.
_WAITING = 0.04
_ALWAYS_SAVED = 10

_OTHER = "not what the run in {} had; give the same"

Save = Callable[[training.TrainState, Progress, bool], bool]


def recorded_options(folder: Path) -> Run:
    """The options of the run in a folder, with which ``--resume`` goes on."""
    record = read_options(folder)
    try:
        run = replaced(from_record(record), **_OF_A_PROCESS)
    except UsageError as error:
        raise UsageError(f"--resume: {folder}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"--resume: {folder / 'config.json'} is damaged: {error}") from error
    # The file of the graph may have moved since, or the folder.
    copy = graph_of(folder) / Path(run.network.topology).name
    return replaced(run, topology=str(copy)) if copy.is_file() else run


def saver(checkpoints: checkpoint.Checkpoints, job: Job) -> Save:
    """A function ``save(state, progress, needed) -> bool``, whether it has saved.

    It skips a step that is saved already, and one that need not be when the saves before have made
    training wait too long. The test accuracy is the score, where it is known.
    """
    checksums = functools.cache(lambda: _checksums(job))
    started, waited, num_saves = time.monotonic(), 0.0, 0
    saved = int(job.state.step)  # what a run goes on from

    def save(state: training.TrainState, progress: Progress, needed: bool) -> bool:
        nonlocal waited, num_saves, saved
        start, step, records = time.monotonic(), int(state.step), progress.records
        if step == saved:
            return False
        if not needed and num_saves >= _ALWAYS_SAVED:
            is_late = waited > _WAITING * (start - started)
            if of_all(is_late)[0]:
                return False
        notes = {
            "config": options_record(job),
            "checksums": checksums(),
            "steps_per_epoch": job.problem.steps_per_epoch,
            "devices": job.mesh.size,
            "seconds": start - progress.started,
            "progress": progress._asdict()
            | {
                "sums": {name: values.tolist() for name, values in progress.sums.items()},
                "records": [with_null(record) for record in records],
                "clock": noted(progress.clock),
            },
        }
        known = records and records[-1]["step"] == step
        score = records[-1]["test_accuracy_mean"] if known else None
        checkpoint.save(checkpoints, step, state, notes=notes, score=score)
        waited, num_saves, saved = waited + time.monotonic() - start, num_saves + 1, step
        return True

    return save


def find(run: Run) -> checkpoint.Found | None:
    """The checkpoint from which ``--resume`` goes on; None for a start at the beginning."""
    folder = run.saving.resume
    if folder is None:
        return None
    recorded_options(folder)
    with blame("--resume"):
        return checkpoint.find(checkpoints_of(folder))


def notices(run: Run, found: checkpoint.Found | None) -> Iterator[tuple[str, str]]:
    """Lines about where a run goes on, each with a style."""
    if run.saving.resume is None:
        return
    for step, flaw in found.damaged.items() if found else ():
        yield f"checkpoint {step} is damaged ({flaw}); going on from an earlier one", "bold yellow"
    where = f"step {found.step}" if found else "the start (no checkpoint found)"
    yield f"resuming {run.saving.resume} at {where}", ""


def without_dropped(run: Run, found: checkpoint.Found | None) -> Run:
    """The options of a run that goes on without the agents that it has dropped."""
    dropped = found.notes["progress"]["dropped"] if found else []
    return without_also(run, dropped)


def without_also(run: Run, agents: Iterable[Any]) -> Run:
    """The options of a run without further agents, in an order that does not depend on when."""
    without = {*run.trouble.without_agents, *agents}
    # Numbers before names, which do not compare with them.
    return replaced(
        run, without_agents=tuple(sorted(without, key=lambda x: (isinstance(x, str), x)))
    )


def resumed(job: Job, found: checkpoint.Found | None) -> tuple[Job, Progress]:
    """The job with the checkpoint's state and progress; raises if it had other options or data."""
    folder = job.run.saving.resume
    if folder is None:
        return job, beginning(job)
    if found is None:
        with blame("--resume"):
            _check_options(job, read_options(folder))
            before = read_mixing_matrix(folder)
        if before is not None and not before.equals(job.network.topology.entries):
            raise UsageError(f"--topology: {_OTHER.format(folder)}")
        return job, beginning(job)
    notes = found.notes
    job = at_pace(job, notes["steps_per_epoch"])
    _check_options(job, notes["config"])
    for option, total in _checksums(job).items():
        if notes["checksums"][option] != total:
            raise UsageError(f"{option}: {_OTHER.format(folder)}")
    if found.step > job.problem.num_steps:
        raise UsageError(
            f"--epochs: {job.problem.epochs} are fewer than the "
            f"{found.step // job.problem.steps_per_epoch} that {folder} has behind it; give more"
        )
    try:
        with blame("--resume"):
            state = checkpoint.restore(checkpoints_of(folder), found.step, like=job.state)
    except UsageError as error:
        _check_devices(job, notes.get("devices"))
        raise error
    kept = dict(notes["progress"])
    now = restored(kept.pop("clock", None), job.timing)
    progress = Progress(**with_nan(kept))
    progress = progress._replace(
        records=[with_nan(record) for record in progress.records],
        sums={name: np.array(values, float) for name, values in progress.sums.items()},
        started=time.monotonic() - notes["seconds"],
        sent=tuple(progress.sent),
        clock=now,
    )
    return job._replace(state=state), progress


def at_pace(job: Job, steps_per_epoch: int) -> Job:
    """The job with the epochs of the whole run: without some agents they might be others."""
    return job._replace(problem=job.problem._replace(steps_per_epoch=steps_per_epoch))


@contextlib.contextmanager
def last_good_named(folder: Path) -> Iterator[None]:
    """Adds to what ends a run from which checkpoint in its folder one could go on."""
    try:
        yield
    except Diverged as end:
        raise Diverged(f"{end}; {_last_good(folder)}") from end
    except OSError as error:
        raise RunEnded(f"{error}; {_last_good(folder)}") from error


def _last_good(folder: Path) -> str:
    checkpoints = checkpoints_of(folder)
    with contextlib.suppress(ValueError, OSError):
        if found := checkpoint.find(checkpoints):
            return f"the last good checkpoint is {checkpoints / str(found.step)}"
    return "there is no checkpoint"


def _check_options(job: Job, before: dict[str, Any]) -> None:
    # Of options that did not exist when the run was made, it has the defaults.
    before = as_json(flat(Run()), default=str) | before
    # A schedule that ends at zero depends on where the end is.
    free = _FREE - {"epochs"} if job.run.algorithm.schedule == "cosine" else _FREE
    if job.network.from_file and before["topology"] not in FAMILIES:
        free = free | {"topology"}  # wherever the file is: what it holds is compared
    differing = [
        f"{flag(name)} {before.get(name)} (here {value})"
        for name, value in options_record(job).items()
        if name not in free and before.get(name) != value
    ]
    if differing:
        folder = job.run.saving.resume
        raise UsageError(f"--resume: the run in {folder} has {', '.join(differing)}; give the same")


def _check_devices(job: Job, before: int | None) -> None:
    """Raises if a state does not fit because only one of two runs is on several devices.

    There algorithms of compressed messages hold more: what has been summed up from them.
    """
    here = job.mesh.size
    if job.algorithm.holds_copies and before and (before > 1) != (here > 1):
        remedy = "--devices 1" if before == 1 else f"--devices {before}, or another above 1"
        raise UsageError(
            f"--devices: the run in {job.run.saving.resume} was on {before}, and here is {here}; "
            f"the state of {job.run.algorithm.algorithm} on several devices does not fit one; give "
            f"{remedy}"
        )


def _checksums(job: Job) -> dict[str, int]:
    dataset = job.problem.dataset
    images = zlib.crc32(np.ascontiguousarray(dataset.train_images))
    return {
        "--data-dir": zlib.crc32(np.ascontiguousarray(dataset.train_labels), images),
        "--topology": job.network.topology.entries.checksum(),
    }
