"""What is drawn on a terminal while something runs, and which lines go elsewhere instead."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_SECONDS_PER_LINE = 60.0

T = TypeVar("T")


def redraws(console: Console) -> bool:
    """Whether a line can be drawn over: not in a file or a pipe, a notebook, or a log of CI."""
    is_terminal = console.is_terminal and not console.is_jupyter and not console.is_dumb_terminal
    return is_terminal and not os.environ.get("CI") and not console.quiet


def waiting(console: Console, what: str) -> contextlib.AbstractContextManager[Any]:
    """Shows for how long something takes, where a line can be drawn over."""
    return console.status(what) if redraws(console) else contextlib.nullcontext()


def next_line() -> float:
    """When a line has to say that something goes on, by ``time.monotonic``."""
    return time.monotonic() + _SECONDS_PER_LINE


def tracked(console: Console, description: str, made: Iterable[Any], *, total: int) -> None:
    """Makes all behind a progress bar, see :func:`counted`."""
    for _ in counted(console, description, made, total=total):
        pass


def counted(console: Console, description: str, made: Iterable[T], *, total: int) -> Iterator[T]:
    """What is made, behind a progress bar; where none can be drawn, a line a minute counts it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    due, draws = next_line(), redraws(console)
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not draws) as progress:
        bar = progress.add_task(description, total=total)
        for done, one in enumerate(made, 1):
            yield one
            progress.advance(bar)
            if not draws and time.monotonic() >= due:
                console.print(f"{description}: {done} of {total}", highlight=False)
                due = next_line()
