"""One voice for what a user got wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence


class UsageError(ValueError):
    """A bad option, in one line that names it and the remedy."""


def flag(option: str) -> str:
    """An option as it is typed."""
    return f"--{option.replace('_', '-')}"


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Raises unless the value is one of the choices."""
    if value not in choices:
        raise UsageError(f"{option}: unknown choice {value!r}; expected {', '.join(choices)}")


@contextlib.contextmanager
def blame(option: str) -> Iterator[None]:
    """Turns the library's errors into usage errors of the option that caused them."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        raise UsageError(f"{option}: {error}") from error
