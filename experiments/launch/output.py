"""What a program prints is no reason for it to end: not a full disk, nor a reader who goes away."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def lossy_output() -> Iterator[None]:
    """Standard output and errors that lose what cannot be written, and what their encoding lacks.

    Streams that are closed are opened on the null device: else the next file to be opened would get
    their number, and with it whatever a library prints.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lossy(sys.stdout, 1), _lossy(sys.stderr, 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _lossy(stream: io.TextIOBase | None, number: int) -> io.TextIOBase:
    if stream is None:  # it is closed
        return io.TextIOWrapper(io.BufferedWriter(_LossyFile(number)), errors="replace")
    if type(stream) is not io.TextIOWrapper:
        return stream  # somebody else's, such as a test's
    raw = getattr(stream.buffer, "raw", stream.buffer)  # where python -u has no buffer
    if not isinstance(raw, io.FileIO):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_LossyFile(raw.fileno())),
        encoding=stream.encoding,
        errors="replace" if number == 1 else stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _LossyFile(io.FileIO):
    """A file that becomes the null device when it cannot be written, and says so once."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write(self, data: bytes) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])  # a pipe that somebody has made non-blocking is full
            return written
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # for all that is still in buffers, of libraries too
            os.close(null)
            if self.fileno() == 1 and error.errno != errno.EPIPE:  # a reader who goes away knows
                line = f"warning: standard output is lost from here on ({error.strerror})\n"
                with contextlib.suppress(OSError):
                    os.write(2, line.encode())
            return len(data)
