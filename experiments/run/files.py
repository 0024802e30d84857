"""What lies in a run's folder: config.json, metrics.jsonl, curves.png and checkpoints."""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from pathlib import Path
from typing import Any, TextIO

import jax

from cdjax._json import as_json, to_json
from experiments.run.config import FORMAT, flat
from experiments.run.errors import blame
from experiments.run.job import Job


def make_folder(job: Job, folder: Path | None) -> Path:
    """Makes the run's folder: the given one, or one that tells what is run, and when."""
    with blame("--out"):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        run, name = job.run, job.problem.dataset.name
        graph = f"{Path(run.network.topology).stem}-{job.network.num_agents}"
        now = time.strftime("%Y%m%d-%H%M%S")
        stem = run.saving.out / f"{name}-{run.algorithm.algorithm}-{graph}-{now}"
        tries = (stem.with_name(f"{stem.name}-{i}") if i else stem for i in itertools.count())
        folder = next(path for path in tries if not path.exists())
        folder.mkdir(parents=True)
        return folder


def checkpoints_of(folder: Path) -> Path:
    """Where a run's checkpoints are."""
    return folder / "checkpoints"


def title(job: Job) -> str:
    """What a figure of the run says above it."""
    name = job.run.algorithm.algorithm
    return f"{name} on {job.problem.dataset.name}, {job.network.topology.name}"


def options_record(job: Job) -> dict[str, Any]:
    """All options as they took effect, for config.json."""
    record = flat(job.run) | {
        "agents": job.network.num_whole,
        "dataset": job.problem.dataset.name,
        "batch_size": job.problem.batch_size,
        "epochs": job.problem.epochs,
        "eval_every": job.problem.eval_every,
        "format": FORMAT,
    }
    return as_json(record, default=str)


def write_options(job: Job, folder: Path) -> None:
    """Writes config.json."""
    _write(folder / "config.json", to_json(options_record(job), indent=2) + "\n")


def metrics_file(folder: Path, records: list[dict[str, Any]]) -> TextIO:
    """metrics.jsonl with the records so far, to be continued; of several processes by the first."""
    if jax.process_index():
        return open(os.devnull, "w")
    path = folder / "metrics.jsonl"
    _write(path, "".join(to_json(record) + "\n" for record in records))
    return path.open("a")


def write_record(file: TextIO, record: dict[str, Any]) -> None:
    """Adds a line to metrics.jsonl."""
    file.write(to_json(record) + "\n")
    file.flush()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records in metrics.jsonl, with NaN for the numbers that were not finite."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [with_nan(json.loads(line)) for line in lines]


def with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it comes back from JSON, which has null for numbers that are not finite."""
    return {name: math.nan if value is None else value for name, value in record.items()}


def _write(path: Path, text: str) -> None:
    """Writes a file that is the old one or the new one, whole, whenever the process dies."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)
