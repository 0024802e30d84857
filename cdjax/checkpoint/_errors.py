"""Errors of a disk: one kind, one line, and told once."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path


def check_room(folder: Path, num_bytes: int) -> None:
    """Raises if a save does not fit, before the disk is filled with a part of it."""
    if shutil.disk_usage(folder).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Turns whatever is raised into an OSError of one line that names the folder.

    TensorStore raises a ValueError of many lines, with the system's error code inside.
    """
    try:
        yield
    except Exception as error:
        code = re.search(r"os_error_code='(\d+)'|^\[Errno (\d+)\]", str(error))
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        reason = os.strerror(int(code[1] or code[2])) if code else reason
        raise OSError(f"a checkpoint cannot be written into {folder}: {reason}") from error


@contextlib.contextmanager
def raised_errors_not_logged(library: str) -> Iterator[None]:
    """Silences log records in which a library reports exceptions that it also raises.

    Orbax logs a failed save with its traceback and then raises it, so the user would read it twice.
    It logs to absl's logger, which the whole process shares. So a filter on that logger drops only
    the records that carry an exception and come from the library's files.
    """

    def is_kept(record: logging.LogRecord) -> bool:
        return not (record.exc_info and library in Path(record.pathname).parts)

    log = logging.getLogger("absl")
    log.addFilter(is_kept)
    try:
        yield
    finally:
        log.removeFilter(is_kept)
