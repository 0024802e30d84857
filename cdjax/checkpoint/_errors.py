"""What a disk refuses, in one voice."""

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
    """Raises before a disk is filled up with what would have to be thrown away."""
    if shutil.disk_usage(folder).free < num_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Whatever a library raises when it cannot write, TensorStore's ValueErrors too, as OSError."""
    try:
        yield
    except Exception as error:
        code = re.search(r"os_error_code='(\d+)'|^\[Errno (\d+)\]", str(error))
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        reason = os.strerror(int(code[1] or code[2])) if code else reason
        raise OSError(f"a checkpoint cannot be written into {folder}: {reason}") from error


@contextlib.contextmanager
def errors_told_once(library: str) -> Iterator[None]:
    """Keeps out of absl's log what a library tells there about errors that it raises too."""

    def is_news(record: logging.LogRecord) -> bool:
        return not (record.exc_info and library in Path(record.pathname).parts)

    log = logging.getLogger("absl")
    log.addFilter(is_news)
    try:
        yield
    finally:
        log.removeFilter(is_news)
