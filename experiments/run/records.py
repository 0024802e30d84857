"""Runs that are made once and kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.run.config import RunConfig
from experiments.run.endings import Diverged
from experiments.run.runner import run

Records = list[dict[str, Any]]


class Entry(NamedTuple):
    """One curve: what was run, and the records of a run for each seed."""

    label: str
    config: RunConfig
    runs: Sequence[Records]


def run_once(config: RunConfig, folder: Path, *, quiet: bool = False) -> Records:
    """The records of a run, from its folder if it has ended there before.

    Args:
        config: the options.
        folder: the run's own; what another or an unfinished run left in it is written over.
        quiet: whether to print nothing.

    Returns:
        The records of metrics.jsonl, one an evaluation; of a run that diverges, those before.
    """
    described, done = _described(config), folder / "done.json"
    # Of options that did not exist when the run was made, it has the defaults.
    if not done.exists() or _described(RunConfig()) | json.loads(done.read_text()) != described:
        done.unlink(missing_ok=True)
        try:
            run(config, folder=folder, quiet=quiet)
        except Diverged:
            pass  # what it is worth is in its records
        done.write_text(json.dumps(described, indent=2) + "\n")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def over_seeds(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation of a number a seed."""
    return f"{np.mean(values):{form}} ± {np.std(values):{form}}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _described(config: RunConfig) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))
