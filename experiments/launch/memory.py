"""The memory of a run that goes on for days."""

from __future__ import annotations

import contextlib
import ctypes
import os

_M_ARENA_MAX = -8  # of glibc's malloc.h


def allocate_in_one_arena() -> None:
    """Lets all threads of this process take memory from one pool, where the C library is glibc.

    By default each has one of its own, and what is freed in one serves no other: of two hours of
    ``benchmarks.soak`` a run grew from 771 to 843 MB in the one with many pools, from 614 to 627 in
    the one with a single pool, at the same speed. Whoever sets MALLOC_ARENA_MAX has chosen.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
