"""Finished runs in one figure and one table: ``python -m experiments.overlay RUN RUN ...``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from experiments.launch.cli import main
from experiments.report import plots
from experiments.report.page import size
from experiments.report.tables import markdown_table
from experiments.run import files
from experiments.run.errors import UsageError, blame

# What tells runs apart for a reader: of more differences than these a folder's name says as much.
_MOST_DIFFERENCES = 3
# Options that say where and how a run was made, not what it is.
_UNSEEN = {
    "out", "resume", "data_dir", "stand_in", "devices", "agent_plan", "log_every", "eval_every",
    "checkpoint_every", "keep_checkpoints", "coordinator", "num_processes", "process_id",
    "secret_file", "format", "checksum",
}  # fmt: skip
_HEAD = ("run", "epochs", "test accuracy", "of one model", "distance", "sent", "time")


@dataclass(frozen=True)
class Overlay:
    """Compares finished runs: accuracy and consensus distance, against epochs and against bytes."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of the runs."""
    out: Path = Path("overlay")
    """Folder of the figure, overlay.png, and the table, overlay.md."""


class Found(NamedTuple):
    """A run as it was found: its folder, its options and its records."""

    folder: Path
    options: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]


def overlay(options: Overlay) -> None:
    """Prints the table of the runs, and writes it and the figure to ``--out``."""
    if not options.runs:
        raise UsageError("RUN: no run is given; give the folders of some, such as runs/*")
    runs = [found_in(folder) for folder in options.runs]
    labels = labels_of(runs)
    rows = [_row(label, run) for label, run in zip(labels, runs, strict=True)]
    names = dict.fromkeys(run.records[-1]["dataset"] for run in runs)
    by_label = dict(zip(labels, (run.records for run in runs), strict=True))
    figure = plots.overlay(by_label, f"{len(runs)} runs on {', '.join(names)}")
    with blame("--out"):
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "overlay.md").write_text(markdown_table(_HEAD, rows), encoding="utf-8")
        figure.savefig(options.out / "overlay.png", dpi=120)
    table = Table(*_HEAD)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table, markup=False)
    line = f"results in {options.out}: overlay.png, overlay.md"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def found_in(folder: Path) -> Found:
    """The run in a folder; raises a UsageError if there is none, or one without an evaluation."""
    options = files.read_options(folder, "RUN")
    try:
        records = files.read_records(folder)
    except FileNotFoundError as error:
        raise UsageError(f"RUN: {folder} has no metrics.jsonl; give a finished run") from error
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"RUN: {folder / 'metrics.jsonl'} is damaged: {error}") from error
    if not records:
        raise UsageError(f"RUN: {folder} has no evaluation yet; give a finished run")
    return Found(folder, options, records)


def labels_of(runs: Sequence[Found]) -> list[str]:
    """What tells the runs apart: the options in which they differ, or their folders' names."""
    names = dict.fromkeys(name for run in runs for name in run.options if name not in _UNSEEN)
    differing = [name for name in names if len({str(run.options.get(name)) for run in runs}) > 1]
    labels = [_differences(run, differing) for run in runs]
    if not 0 < len(differing) <= _MOST_DIFFERENCES or len({*labels}) < len(runs):
        labels = [run.folder.resolve().name for run in runs]
    if len({*labels}) < len(runs):
        labels = [str(run.folder) for run in runs]
    return [f"{label} ({i})" if label in labels[:i] else label for i, label in enumerate(labels)]


def _differences(run: Found, names: Sequence[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {run.options.get(name)}" for name in names)


def _row(label: str, run: Found) -> list[str]:
    last, epochs = run.records[-1], run.options.get("epochs")
    low, high = last["test_accuracy_min"], last["test_accuracy_max"]
    unfinished = f" of {epochs}" if last["epoch"] != epochs else ""
    return [
        label,
        f"{last['epoch']}{unfinished}",
        f"{last['test_accuracy_mean']:.2%} ({low:.2%} to {high:.2%})",
        f"{last['mean_params_test_accuracy']:.2%}",
        f"{last['consensus_distance']:.2e}",
        size(last["bytes_sent"]),
        f"{last['seconds']:.1f} s",
    ]


if __name__ == "__main__":
    main(Overlay(()), overlay)
