"""One voice for what a user got wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UsageError(ValueError):
    """A bad option, in one line that names it and the remedy."""


@contextlib.contextmanager
def blame(option: str) -> Iterator[None]:
    """Turns the library's errors into usage errors of the option that caused them."""
    try:
        yield
    except UsageError:
        raise
    except (ValueError, OSError) as error:
        raise UsageError(f"{option}: {error}") from error
