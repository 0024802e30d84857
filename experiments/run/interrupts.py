"""Signals that end a run: the first is noted, so that the run can save; a second Ctrl-C insists."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

# By these a terminal, a scheduler or a limit ends a program, or warns that it will soon: SIGUSR1
# and SIGUSR2 are the warnings of Slurm, Grid Engine and LSF, SIGXCPU that of a limit on CPU time.
# SIGQUIT (Ctrl-\) stays what ends a program at once.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
# Nobody who warns insists: a terminal that is closed sends SIGHUP twice.
_INSISTING = (signal.SIGINT, signal.SIGTERM)
# The command timeout sends SIGTERM to a program and then to its group, of which the program is one.
_ECHO_SECONDS = 1.0
_FLUSHING_SECONDS = 0.5


@contextlib.contextmanager
def caught_signals() -> Iterator[list[signal.Signals]]:
    """A list to which signals that end a program are added, see ``NAMES``.

    A second SIGINT or SIGTERM ends the process at once. What is ignored, as SIGHUP is by ``nohup``,
    stays so. Once a signal has been caught, the process is meant to end: further ones insist even
    after this context.
    """
    caught: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # Python delivers signals to the main thread only
        return
    insist = _insisting()

    def catch(number: int, frame: FrameType | None) -> None:
        del frame
        caught.append(signal.Signals(number))
        insist(number)

    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        if not caught:
            for number, old in before.items():
                signal.signal(number, old)


@contextlib.contextmanager
def ended_by_two() -> Iterator[None]:
    """Has a second SIGINT or SIGTERM end the program at once, whatever its threads wait for.

    The first SIGINT raises a KeyboardInterrupt, or is :func:`caught_signals`'s. Python calls what
    handles a signal between two lines of the main thread, which may wait in a compiler or for a
    disk. So a thread of its own counts them, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    insist, interrupted = _insisting(), threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        insist(number)
        interrupted.set()
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    told_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(reading, _insisting()), daemon=True).start()
    try:
        yield
    finally:
        # After a first signal all of it stays: the end of Python waits for threads, too.
        if not interrupted.is_set() and signal.getsignal(signal.SIGINT) in (interrupt, before):
            signal.set_wakeup_fd(told_before)
            os.close(writing)  # which ends the thread
            signal.signal(signal.SIGINT, before)


def end_at_once(number: int) -> NoReturn:
    """Ends the process as after a signal; what streams hold is written if it can be."""

    def flush() -> None:
        if sys.stdout.isatty():
            os.write(1, b"\033[?25h\n")  # shows the cursor, which a progress bar has hidden
        for stream in (sys.stdout, sys.stderr):
            stream.flush()

    # In a thread: another may hold the lock of a stream whose reader is asleep.
    flushing = threading.Thread(target=_quietly, args=(flush,), daemon=True)
    with contextlib.suppress(RuntimeError):  # too late for another thread
        flushing.start()
        flushing.join(_FLUSHING_SECONDS)
    os._exit(128 + number)


def _insisting() -> Callable[[int], None]:
    """A function that is told of each signal, and ends the process at the second that insists."""
    times: list[float] = []

    def insist(number: int) -> None:
        if number not in _INSISTING:
            return
        now = time.monotonic()
        if times and (number == signal.SIGINT or now - times[-1] > _ECHO_SECONDS):
            end_at_once(number)
        times.append(now)

    return insist


def _count(reading: int, insist: Callable[[int], None]) -> None:
    with open(reading, "rb", buffering=0) as numbers:
        while read := numbers.read(64):
            for number in read:
                insist(number)


def _quietly(act: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):
        act()
