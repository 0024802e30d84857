"""What a run's checkpoints hold beside the state, and which runs may go on from them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from cdjax import checkpoint, training
from experiments.run.agreement import of_all
from experiments.run.config import RunConfig
from experiments.run.display import config_record
from experiments.run.endings import RunEnded
from experiments.run.errors import UsageError, blame, flag
from experiments.run.setup import Job

# Options that change neither a run's numbers nor what of them is recorded; and the data's folder,
# which may have moved: the data are compared themselves.
_FREE = {
    "epochs", "log_every", "agent_plan", "devices", "coordinator", "num_processes", "process_id",
    "out", "data_dir", "checkpoint_every", "keep_checkpoints", "resume", "on_nan",
}  # fmt: skip


# The share of its time that training waits for its saves, at most, and how many it has anyway.
_WAITING = 0.04
_ALWAYS_SAVED = 10


class Progress(NamedTuple):
    """The part of a run that is on the host.

    ``sums`` are those of the training metrics over the steps since the last record, each of shape
    (N,); ``started`` is the monotonic clock at the start, as if nothing had interrupted the run;
    ``dropped`` are the numbers of the agents that were taken out, and ``sent`` is the step at which
    the last was, with the bytes that all had sent by then.
    """

    records: list[dict[str, Any]]
    sums: dict[str, np.ndarray]
    started: float
    dropped: list[int]
    sent: tuple[int, float]


def checkpoints_of(folder: Path) -> Path:
    """Where a run's checkpoints are."""
    return folder / "checkpoints"


def beginning() -> Progress:
    """The progress of a run that starts."""
    return Progress([], {}, time.monotonic(), [], (0, 0.0))


def saver(
    checkpoints: checkpoint.Checkpoints, job: Job
) -> Callable[[training.TrainState, Progress, bool], bool]:
    """A function that saves all that the run goes on with.

    Args:
        checkpoints: the folder, open for saving.
        job: what is run.

    Returns:
        ``save(state, progress, needed) -> bool``, whether it has saved: it doesn't if there is no
        need and the saves before have made training wait too long. The test accuracy is the score,
        where it is known.
    """
    checksums = functools.cache(lambda: _checksums(job))
    started, waited, num_saves = time.monotonic(), 0.0, 0

    def save(state: training.TrainState, progress: Progress, needed: bool) -> bool:
        nonlocal waited, num_saves
        start = time.monotonic()
        if not needed and num_saves >= _ALWAYS_SAVED:
            is_late = waited > _WAITING * (start - started)
            if of_all(is_late)[0]:
                return False
        step, records = int(state.step), progress.records
        notes = {
            "config": config_record(job),
            "checksums": checksums(),
            "steps_per_epoch": job.steps_per_epoch,
            "records": records,
            "sums": {name: values.tolist() for name, values in progress.sums.items()},
            "seconds": start - progress.started,
            "dropped": progress.dropped,
            "sent": progress.sent,
        }
        known = records and records[-1]["step"] == step
        score = records[-1]["test_accuracy_mean"] if known else None
        checkpoint.save(checkpoints, step, state, notes, score=score)
        waited, num_saves = waited + time.monotonic() - start, num_saves + 1
        return True

    return save


def find(config: RunConfig, console: Console) -> checkpoint.Found | None:
    """The checkpoint from which ``--resume`` goes on; None for a start at the beginning."""
    folder = config.resume
    if folder is None:
        return None
    if not (folder / "config.json").is_file():
        raise UsageError(f"--resume: {folder} is no run's folder: it has no config.json")
    with blame("--resume"):
        found = checkpoint.find(checkpoints_of(folder))
    for step, flaw in found.damaged.items() if found else ():
        line = f"checkpoint {step} is damaged ({flaw}); going on from an earlier one"
        console.print(line, style="bold yellow", markup=False, soft_wrap=True)
    where = f"step {found.step}" if found else "the beginning, for want of a checkpoint"
    console.print(f"resuming {folder} at {where}", markup=False, highlight=False, soft_wrap=True)
    return found


def with_dropped(config: RunConfig, found: checkpoint.Found | None) -> RunConfig:
    """The options of a run that goes on without the agents that it has dropped."""
    dropped = found.notes["dropped"] if found else []
    without = tuple(sorted({*config.without_agents, *dropped}))
    return dataclasses.replace(config, without_agents=without)


def resumed(job: Job, found: checkpoint.Found | None) -> tuple[Job, Progress]:
    """The job with the checkpoint's state, and the progress that belongs to it.

    Raises:
        UsageError: if the run had other options or other data, naming them.
    """
    folder = job.config.resume
    if folder is None:
        return job, beginning()
    if found is None:
        with blame("--resume"):
            _check_config(job, json.loads((folder / "config.json").read_text()))
        return job, beginning()
    job = at_pace(job, found.notes["steps_per_epoch"])
    _check_config(job, found.notes["config"])
    for option, total in _checksums(job).items():
        if found.notes["checksums"][option] != total:
            raise UsageError(f"{option}: not what the run in {folder} had; give the same")
    if found.step > job.epochs * job.steps_per_epoch:
        raise UsageError(
            f"--epochs: {job.epochs} are fewer than the {found.step // job.steps_per_epoch} that "
            f"{folder} has behind it; give more"
        )
    with blame("--resume"):
        state = checkpoint.restore(checkpoints_of(folder), found.step, job.state)
    progress = Progress(
        records=found.notes["records"],
        sums={name: np.array(values) for name, values in found.notes["sums"].items()},
        started=time.monotonic() - found.notes["seconds"],
        dropped=found.notes["dropped"],
        sent=tuple(found.notes["sent"]),
    )
    return job._replace(state=state), progress


def at_pace(job: Job, steps_per_epoch: int) -> Job:
    """The job with the epochs of the whole run: without some agents they might be others."""
    turn = {"log_every": steps_per_epoch} if job.config.sequential else {}
    config = dataclasses.replace(job.config, **turn)
    return job._replace(config=config, steps_per_epoch=steps_per_epoch)


@contextlib.contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Ends the run in one line when something cannot be written."""
    try:
        yield
    except OSError as error:
        raise RunEnded(f"{error}; {last_good(checkpoints_of(folder))}") from error


def last_good(checkpoints: Path) -> str:
    """Where one could go on from."""
    with contextlib.suppress(ValueError, OSError):
        if found := checkpoint.find(checkpoints):
            return f"the last good checkpoint is {checkpoints / str(found.step)}"
    return "there is no checkpoint"


def _check_config(job: Job, before: dict[str, Any]) -> None:
    config = json.loads(json.dumps(config_record(job)))
    # Of options that did not exist when the run was made, it has the defaults.
    before = json.loads(json.dumps(dataclasses.asdict(RunConfig()), default=str)) | before
    # A schedule that ends at zero depends on where the end is.
    free = _FREE - {"epochs"} if job.config.step_sizes == "cosine" else _FREE
    differing = [
        f"{flag(name)} {before.get(name)} (here {value})"
        for name, value in config.items()
        if name not in free and before.get(name) != value
    ]
    if differing:
        raise UsageError(
            f"--resume: the run in {job.config.resume} has {', '.join(differing)}; give the same"
        )


def _checksums(job: Job) -> dict[str, int]:
    dataset = job.dataset
    images = zlib.crc32(np.ascontiguousarray(dataset.train_images))
    return {
        "--data-dir": zlib.crc32(np.ascontiguousarray(dataset.train_labels), images),
        "--topology": zlib.crc32(np.ascontiguousarray(job.topology.mixing_matrix)),
    }
