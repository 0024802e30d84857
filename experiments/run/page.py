"""The page that a run leaves in its folder: what it found, drawn from its records and its job."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

import cdjax
from cdjax.topology._layout import positions
from experiments.report.page import MOST_DRAWN, Agent, Facts, page
from experiments.run import files
from experiments.run.config import Run, flat
from experiments.run.display import Shown
from experiments.run.errors import RunEnded
from experiments.run.job import Job

_PACKAGES = ("jax", "jaxlib", "numpy", "optax", "flax")


@contextlib.contextmanager
def left_in(folder: Path, job: Job, *, shown: Shown, console: Console) -> Iterator[None]:
    """Leaves report.html behind when a run ends, early or not; a page that fails is a warning."""
    try:
        yield
    except RunEnded as end:
        _write(folder, job, shown=shown, ended=str(end), console=console)
        raise
    _write(folder, job, shown=shown, ended="", console=console)


def _write(folder: Path, job: Job, *, shown: Shown, ended: str, console: Console) -> None:
    try:
        files.write_page(folder, page(facts_of(folder, job, shown=shown, ended=ended)))
    except Exception as error:  # whatever it is, the run itself has not failed
        line = f"warning: report.html could not be written ({type(error).__name__}: {error})"
        console.print(line, style="bold yellow", markup=False, highlight=False, soft_wrap=True)


def facts_of(folder: Path, job: Job, *, shown: Shown, ended: str = "") -> Facts:
    """What the page of a run says, from its folder and its job."""
    graph, options = job.network.topology, flat(job.run)
    defaults = flat(Run())
    return Facts(
        title=files.title(job),
        warnings=[f"Ended early: {ended}"] * bool(ended) + shown.warnings,
        records=files.read_records(folder),
        agents=_agents(folder, job),
        places=positions(graph) if graph.num_agents <= MOST_DRAWN else None,
        edges=[*graph.graph.edges] if job.algorithm.over_topology else [],
        about=shown.rows,
        options=_by_subject(job),
        given=frozenset(name for name in options if options[name] != defaults[name]),
        versions=_versions(),
    )


def _agents(folder: Path, job: Job) -> list[Agent]:
    found, net = files.read_agents(folder), job.network
    malicious = {*net.malicious}
    names, counts = net.names(range(net.num_agents)), job.problem.class_counts
    neighbors = dict(net.topology.graph.degree) if job.algorithm.over_topology else {}
    agents = []
    for number, name in enumerate(names):
        own = found.get(str(name), {})
        # Those of an earlier evaluation may have diverged since, and been dropped.
        note = "malicious" if number in malicious else "" if own else "not evaluated"
        agents.append(
            Agent(
                name=str(name),
                accuracy=own.get("test_accuracy"),
                loss=own.get("test_loss"),
                neighbors=neighbors.get(number, 0),
                counts=counts[number].tolist(),
                note=note,
            )
        )
    return agents


def _by_subject(job: Job) -> dict[str, dict[str, Any]]:
    """The options as they took effect, in the order and the parts of the configuration."""
    record = files.options_record(job)
    return {
        subject: {name: record.get(name) for name in vars(part)}
        for subject, part in vars(job.run).items()
    }


def _versions() -> dict[str, str]:
    found = {"cdjax": cdjax.__version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found | {"system": platform.platform()}
