"""Runs that are made once and kept."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from cdjax._json import as_json, to_json
from experiments.run.config import Run, flat
from experiments.run.errors import Diverged
from experiments.run.files import read_records
from experiments.run.runner import run
from experiments.run.together import run_together

Records = list[dict[str, Any]]


def run_once(options: Run, folder: Path) -> Records:
    """The records of a run, one per evaluation, from its folder if it has ended there before.

    What another or an unfinished run left in the folder is written over. Of a run that diverges,
    the records are those before.
    """
    if not _is_done(options, folder):
        done = folder / "done.json"
        done.unlink(missing_ok=True)
        try:
            run(options, folder=folder, quiet=True)
        except Diverged:
            pass  # what it is worth is in its records
        done.write_text(to_json(_described(options), indent=2) + "\n")
    return read_records(folder)


def run_all(runs: Sequence[tuple[Run, Path]], *, jobs: int) -> Iterator[None]:
    """Makes those of the runs that are missing, ``jobs`` at a time; yields after each.

    Each job is a process with its share of the cores and of an accelerator's memory.
    """
    missing = {folder: run for run, folder in runs if not _is_done(run, folder)}
    yield from [None] * (len(runs) - len(missing))
    if jobs == 1 or not missing:
        for folder, run in missing.items():
            run_once(run, folder)
            yield
        return
    spawned = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    numbers = spawned.SimpleQueue()
    for number in range(jobs):
        numbers.put(number)
    with ProcessPoolExecutor(jobs, spawned, _take_share, (numbers, jobs)) as pool:
        futures = [pool.submit(run_once, run, folder) for folder, run in missing.items()]
        try:
            for future in as_completed(futures):
                future.result()
                yield
        finally:
            pool.shutdown(cancel_futures=True)


def make_together(runs: Sequence[tuple[Run, Path]], *, at_most: int) -> Iterator[None]:
    """Makes those of the runs that are missing, ``at_most`` by one program; yields after each.

    Each run's last record is kept in its file, see :func:`kept_records`. The runs may differ as
    those of :func:`experiments.run.together.run_together` may.
    """
    missing = [one for one in runs if _kept(*one) is None]
    yield from [None] * (len(runs) - len(missing))
    for first in range(0, len(missing), at_most):
        group = missing[first : first + at_most]
        records = run_together([options for options, _ in group])
        for (options, path), record in zip(group, records, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            text = to_json({"options": _described(options), "record": record}, indent=1) + "\n"
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_text(text)
            unfinished.replace(path)  # whole, or not there
            yield


def kept_records(runs: Sequence[tuple[Run, Path]]) -> Records:
    """The records that :func:`make_together` has kept; numbers that are not finite are NaN."""
    records = [_kept(*one) for one in runs]
    return [{n: math.nan if v is None else v for n, v in (r or {}).items()} for r in records]


def _kept(options: Run, path: Path) -> dict[str, Any] | None:
    """The record of a run; None if the file holds none, or that of other options."""
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    return kept["record"] if _is_of(kept["options"], options) else None


def _take_share(numbers: multiprocessing.SimpleQueue, jobs: int) -> None:
    """Leaves this process its own cores, before JAX counts them; it ends with the one above it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = numbers.get()
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / jobs:.3f}"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: jobs] or cores)


def _end_with_parent() -> None:
    """A signal to the process above would leave this one at work."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _is_done(options: Run, folder: Path) -> bool:
    done = folder / "done.json"
    return done.exists() and _is_of(json.loads(done.read_text()), options)


def _is_of(described: dict[str, Any], options: Run) -> bool:
    # Of options that did not exist when the run was made, it has the defaults. Where runs are kept
    # does not change them: a study's folder may move.
    elsewhere = {"out": None}
    return _described(Run()) | described | elsewhere == _described(options) | elsewhere


def _described(options: Run) -> dict[str, Any]:
    return as_json(flat(options), default=str)
