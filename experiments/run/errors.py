"""How a run can fail: a bad option, or an end before its last epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches


class UsageError(ValueError):
    """A bad option, in one line that names it and the remedy."""


class RunEnded(Exception):
    """A run that has ended early: why, in one line, and the program's exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Diverged(RunEnded):
    """A run in which an agent's loss or parameters are not finite."""


def flag(option: str) -> str:
    """An option as it is typed."""
    return f"--{option.replace('_', '-')}"


def guess(word: str, choices: Iterable[str]) -> str:
    """Which of the choices a word was meant to be, in parentheses; "" if none is near."""
    close = get_close_matches(word, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@contextlib.contextmanager
def blame(option: str) -> Iterator[None]:
    """Turns the library's errors into usage errors that name the option that caused them."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        raise UsageError(f"{option}: {error}") from error
