"""From records to tables."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from rich.table import Table

Runs: TypeAlias = Sequence[Sequence[Mapping[str, Any]]]  # the records of one run per seed


def command(module: str) -> str:
    """The command that runs a module as this process was told to."""
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pairs(title: str, rows: Mapping[str, str]) -> Table:
    """A table for the terminal of names and what they stand for."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")  # a path is shown whole
    for row in rows.items():
        table.add_row(*row)
    return table


def over_seeds(values: Sequence[float], form: str) -> str:
    """Mean and sample standard deviation (n − 1) of one number per seed."""
    mean = f"{np.mean(values):{form}}"
    return f"{mean} ± {np.std(values, ddof=1):{form}}" if len(values) > 1 else mean


def percents(runs: Runs, column: str = "test_accuracy_mean") -> list[float]:
    """The last value of each run in %; NaN of one that diverges before its first."""
    return [100 * run[-1][column] if run else np.nan for run in runs]
