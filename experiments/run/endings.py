"""How a run ends before its last epoch: by a signal, by divergence, by a disk that is full."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class RunEnded(Exception):
    """A run that has ended early; says why in one line, and the program's exit code."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Diverged(RunEnded):
    """A run in which an agent's loss or parameters are not finite."""


@contextlib.contextmanager
def caught_signals() -> Iterator[list[signal.Signals]]:
    """A list that the first SIGTERM or SIGINT enters; a second does what it does elsewhere."""
    caught: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # Python hands signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        del frame
        caught.append(signal.Signals(number))
        restore()

    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        restore()
