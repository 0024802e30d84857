"""Runs that are made once and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from experiments.run.config import Run, flat
from experiments.run.errors import Diverged
from experiments.run.runner import run

Records = list[dict[str, Any]]


def run_once(options: Run, folder: Path, *, quiet: bool = False) -> Records:
    """The records of a run, one per evaluation, from its folder if it has ended there before.

    What another or an unfinished run left in the folder is written over. Of a run that diverges,
    the records are those before.
    """
    described, done = _described(options), folder / "done.json"
    # Of options that did not exist when the run was made, it has the defaults.
    if not done.exists() or _described(Run()) | json.loads(done.read_text()) != described:
        done.unlink(missing_ok=True)
        try:
            run(options, folder=folder, quiet=quiet)
        except Diverged:
            pass  # what it is worth is in its records
        done.write_text(json.dumps(described, indent=2) + "\n")
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _described(options: Run) -> dict[str, Any]:
    return json.loads(json.dumps(flat(options), default=str))
