"""What lies in a run's folder: options, graph, metrics, a page, two figures, checkpoints."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from cdjax._json import as_json, to_json
from cdjax.topology._entries import Entries
from cdjax.training import Metrics
from experiments.run.config import FORMAT, flat
from experiments.run.errors import UsageError, blame
from experiments.run.job import Job

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

# Of the name of a graph's file in that of a run's folder, whose length a disk limits.
_LONGEST_STEM = 60
# The field of a line of metrics.jsonl that says of each null whether it was nan, inf or -inf.
_NOT_FINITE = "not_finite"


def make_folder(job: Job, folder: Path | None) -> Path:
    """Makes the run's folder: the given one, or one that tells what is run, and when."""
    with blame("--out"):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        run, name = job.run, job.problem.dataset.name
        stem = Path(run.network.topology).stem[:_LONGEST_STEM]
        now = time.strftime("%Y%m%d-%H%M%S")
        stem = f"{name}-{run.algorithm.algorithm}-{stem}-{job.network.num_agents}-{now}"
        run.saving.out.mkdir(parents=True, exist_ok=True)
        for number in itertools.count():
            folder = run.saving.out / (f"{stem}-{number}" if number else stem)
            # Another run may start in the same second, so making it is also how to look for it.
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    raise AssertionError("there is no end of numbers")


@contextlib.contextmanager
def at_work(folder: Path, option: str) -> Iterator[None]:
    """Keeps other processes from the folder; the system lets them in if this one is killed.

    Raises a UsageError that names the option if another process is at work there.
    """
    with contextlib.ExitStack() as stack:
        if fcntl:
            try:
                lock = stack.enter_context((folder / ".lock").open("a"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{option}: another process is at work in {folder}; wait for its end"
                ) from error
            except OSError:  # a disk that knows no locks, or lets nobody write
                pass
        yield


def checkpoints_of(folder: Path) -> Path:
    """Where a run's checkpoints are."""
    return folder / "checkpoints"


def title(job: Job) -> str:
    """What a figure of the run says above it."""
    name = job.run.algorithm.algorithm
    return f"{name} on {job.problem.dataset.name}, {job.network.topology.name}"


def graph_of(folder: Path) -> Path:
    """Where a run's mixing matrix is, and the file of its graph if there was one."""
    return folder / "graph"


def write_graph(job: Job, folder: Path) -> None:
    """Writes the graph of a run that starts: its edges may move, and its builder may change.

    ``mixing_matrix.npz`` holds the entries of the mixing matrix that are not zero.
    """
    graph, file = graph_of(folder), Path(job.run.network.topology)
    if job.run.saving.resume and graph.is_dir():
        return
    shutil.rmtree(graph, ignore_errors=True)
    draft = folder / "graph.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    entries = job.network.topology.entries
    np.savez_compressed(
        draft / "mixing_matrix.npz", num_agents=entries.num_agents,
        rows=entries.receivers.astype(np.int32), columns=entries.senders.astype(np.int32),
        weights=entries.weights,
    )  # fmt: skip
    if job.network.from_file:
        shutil.copyfile(file, draft / file.name)
    draft.rename(graph)


def read_mixing_matrix(folder: Path) -> Entries | None:
    """The mixing matrix of the run in a folder; None of an older one, which does not hold it."""
    path = graph_of(folder) / "mixing_matrix.npz"
    if not path.is_file():
        return None
    with np.load(path) as found:
        parts = (found[name] for name in ("rows", "columns", "weights"))
        return Entries(int(found["num_agents"]), *parts)


def partition_title(job: Job) -> str:
    """What the picture of who has which classes says above it."""
    return f"samples per agent and class of {job.problem.dataset.name}, {job.run.data.partition}"


def options_record(job: Job) -> dict[str, Any]:
    """All options as they took effect, for config.json."""
    resume, options = job.run.saving.resume, flat(job.run)
    if resume and Path(options["topology"]).parent == graph_of(resume):
        options["topology"] = read_options(resume)["topology"]  # where the file was
    record = options | {
        "agents": job.network.num_whole,
        "dataset": job.problem.dataset.name,
        "batch_size": job.problem.batch_size,
        "epochs": job.problem.epochs,
        "eval_every": job.problem.eval_every,
        "format": FORMAT,
    }
    return as_json(record, default=str)


def write_options(job: Job, folder: Path, *, dropped: Collection[Any] = ()) -> None:
    """Writes config.json, with a checksum of what it says.

    A run that resumes without the agents it has ``dropped`` did begin with them.
    """
    record = options_record(job)
    record["without_agents"] = [a for a in record["without_agents"] if a not in dropped]
    record["checksum"] = _checksum(record)
    _write(folder / "config.json", to_json(record, indent=2) + "\n")


def read_options(folder: Path, option: str = "--resume") -> dict[str, Any]:
    """What config.json says; raises a UsageError, which names the option, if it is missing or bad.

    The option is the one by which the folder was given.
    """
    path = folder / "config.json"
    with blame(option):
        if not path.is_file():
            raise UsageError(f"{option}: {folder} is no run's folder: it has no config.json")
        try:
            record = json.loads(path.read_text())
        except ValueError as error:
            raise UsageError(f"{option}: {path} is damaged: {error}") from error
    if not isinstance(record, dict):
        raise UsageError(f"{option}: {path} is damaged: it holds no options")
    checksum = record.pop("checksum", None)  # older ones have none
    if checksum not in (None, _checksum(record)):
        raise UsageError(f"{option}: {path} is damaged: its checksum is not that of its options")
    return record


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(to_json(record, sort_keys=True).encode())


def metrics_file(folder: Path, records: list[dict[str, Any]]) -> TextIO:
    """metrics.jsonl with the records so far, to be continued; of several processes by the first."""
    if jax.process_index():
        return open(os.devnull, "w")
    path = folder / "metrics.jsonl"
    _write(path, "".join(map(_line, records)))
    return path.open("a")


def write_record(file: TextIO, record: dict[str, Any]) -> None:
    """Adds a line to metrics.jsonl."""
    file.write(_line(record))
    file.flush()


def with_null(record: dict[str, Any]) -> dict[str, Any]:
    """A record for JSON, which lacks numbers that are not finite: beside their null they are named.

    :func:`with_nan` turns it back.
    """
    floats = {name: value for name, value in record.items() if isinstance(value, float)}
    named = {name: str(value) for name, value in floats.items() if not math.isfinite(value)}
    return record | dict.fromkeys(named) | ({_NOT_FINITE: named} if named else {})


def _line(record: dict[str, Any]) -> str:
    return to_json(with_null(record)) + "\n"


def write_agents(job: Job, folder: Path, record: dict[str, Any], test: Metrics) -> None:
    """Writes agents.json: what the last evaluation found of every honest agent."""
    if jax.process_index():
        return
    names = job.network.names(job.network.honest)
    agents = [
        {"agent": name, "test_accuracy": float(accuracy), "test_loss": float(loss)}
        for name, accuracy, loss in zip(names, test["accuracy"], test["loss"], strict=True)
    ]
    found = {"epoch": record["epoch"], "step": record["step"], "agents": agents}
    _write(folder / "agents.json", to_json(found, default=str) + "\n")


def read_agents(folder: Path) -> dict[str, dict[str, Any]]:
    """What agents.json says, by the agents' names; empty if there is none."""
    path = folder / "agents.json"
    if not path.is_file():
        return {}
    return {str(one["agent"]): with_nan(one) for one in json.loads(path.read_text())["agents"]}


def write_page(folder: Path, text: str) -> None:
    """Writes report.html."""
    _write(folder / "report.html", text)


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The records in metrics.jsonl, with the numbers that were not finite as they were."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [with_nan(json.loads(line)) for line in lines]


def with_nan(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it comes back from JSON, which has null for numbers that are not finite.

    They are NaN where it is not said which ones they were.
    """
    named = {name: float(text) for name, text in record.get(_NOT_FINITE, {}).items()}
    found = {name: math.nan if value is None else value for name, value in record.items()}
    found.pop(_NOT_FINITE, None)
    return found | named


def _write(path: Path, text: str) -> None:
    """Writes a file that is the old one or the new one, whole, whenever the process dies."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
