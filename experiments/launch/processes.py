"""Several processes, one run: how they find each other, and how they learn that one has died.

JAX answers the loss of a process with an abort in C++ after 100 s, or it waits forever. So every
process also keeps a TCP connection to process 0, and a thread that listens to it: JAX releases the
GIL while it waits for other processes. A message is one line of JSON.

*Meeting.* Process i calls process 0 at ``--coordinator`` with ``{"process": i, "processes": N}``.
When all have come, process 0 answers ``{"jax_port": port}``, where JAX's own coordinator will be.

*Ending.* A process that ends sends ``{"end": text, "patience": seconds}``; the text is empty if all
went well. The connection of one that has died ends without, at the latest when its machine has not
answered the kernel for 25 s. (One that hangs stays connected; JAX's limit ends it.) The patience is
for the others to end for the same reason with their own message: 5 s (a wrong option), or a minute
after a signal, since they save first.

*Verdict.* After that process 0, which alone is connected to all, passes the message on without
patience, and everyone prints it and ends. Process 0 goes last, because its end takes JAX's
coordinator along and then JAX aborts the others. If it is process 0 that dies they must be quicker
than JAX: before its abort it prints a stack trace, which gives the thread the 0.1 s that it needs.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

from cdjax._json import to_json
from experiments.run.config import Machine
from experiments.run.errors import UsageError

Message = dict[str, Any]

_JOIN_SECONDS = 45.0
_GRACE_SECONDS = 5.0
_SAVING_SECONDS = 60.0
# The kernel probes after 10 s of silence, then every 5 s; macOS has another name for the first.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
# What a broken connection raises, or a message of a stranger.
_BROKEN = (OSError, ValueError, TypeError, KeyError)

# The process at the other end of each connection, until it ends.
_peers: dict[socket.socket, int] = {}
_joined, _leaving = threading.Event(), threading.Event()


def join(machine: Machine, *, kept: str) -> None:
    """Joins this process to the others of the run, if there are any, before JAX finds its devices.

    With ``coordinator`` these are the processes that the options name. Without it, a launcher that
    JAX recognises (Slurm, Open MPI, a TPU pod) says who takes part. ``kept`` is what is left of the
    run when a process has died, for the error message.

    Raises:
        UsageError: if a number does not fit, or the others are not found within a minute.
    """
    num_processes, own = machine.num_processes, machine.process_id
    address = machine.coordinator and _meet(machine.coordinator, num_processes, own)
    if address:
        threading.Thread(target=_watch, args=(kept,), daemon=True).start()
        _joined.set()
    import jax

    if address:
        jax.distributed.initialize(address, num_processes, own)
        # JAX's own exit comes after this and waits for the others, so they are watched until then.
        atexit.register(_send, [*_peers], {"end": ""})
    else:
        with contextlib.suppress(ValueError):  # no launcher that JAX knows
            jax.distributed.initialize()
    if jax.distributed.is_initialized():
        # It swallows the signal that schedulers send to end a program.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def await_verdict() -> None:
    """Gives the thread time to name the death that may have caused an error."""
    if _joined.is_set():
        time.sleep(2 * _GRACE_SECONDS)


def leave(code: int) -> NoReturn:
    """Ends this process after an error.

    An ordinary exit would wait for the other processes, which may be waiting for this one.
    """
    if not _joined.is_set():
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    _leaving.set()
    patience = _SAVING_SECONDS if code > 128 else _GRACE_SECONDS
    _send(_peers, {"end": f"has ended with exit code {code}", "patience": patience})
    deadline = time.monotonic() + patience + _GRACE_SECONDS
    while any(_peers.values()) and time.monotonic() < deadline:  # process 0 goes last
        time.sleep(0.05)
    os._exit(code)


def _meet(coordinator: str, num_processes: int | None, own: int | None) -> str:
    """Connects this process to the others; returns the address of JAX's own coordinator."""
    if num_processes is None or own is None:
        raise UsageError("--coordinator: it takes --num-processes and --process-id beside it")
    if num_processes < 1:
        raise UsageError(f"--num-processes: {num_processes} is too few; give at least 1")
    if not 0 <= own < num_processes:
        raise UsageError(
            f"--process-id: {own} is none of {num_processes} processes; give 0 to "
            f"{num_processes - 1}"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator: {coordinator!r} is not of the form HOST:PORT")
    address = host, int(port)
    jax_port = _call(address, num_processes, own) if own else _gather(address, num_processes)
    for peer in _peers:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in _KEEPALIVE.keys() & vars(socket):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE[name])
    return f"{host}:{jax_port}"


def _gather(address: tuple[str, int], num_processes: int) -> int:
    """Process 0 waits for all others and answers them together; returns the port for JAX."""
    try:
        listener = socket.create_server(address)
    except OSError as error:
        raise UsageError(
            f"--coordinator: process 0 cannot listen at {address[0]}:{address[1]} "
            f"({error.strerror}); give an address of its own machine and a free port"
        ) from error
    deadline = time.monotonic() + _JOIN_SECONDS
    with listener:
        while missing := sorted({*range(1, num_processes)} - {*_peers.values()}):
            if not select.select([listener], [], [], max(0, deadline - time.monotonic()))[0]:
                raise UsageError(
                    f"--num-processes: of {num_processes} processes {missing} did not come within "
                    f"{_JOIN_SECONDS:g} s; start each with the same --coordinator"
                )
            peer, _ = listener.accept()
            peer.settimeout(_GRACE_SECONDS)
            with contextlib.suppress(*_BROKEN):
                hello = _receive(peer)
                if hello["processes"] == num_processes and hello["process"] in missing:
                    _peers[peer] = hello["process"]
                    continue
                error = f"there is a process {hello['process']} already"
                if hello["processes"] != num_processes:
                    error = f"process 0 has --num-processes {num_processes}"
                _send([peer], {"error": error})
            peer.close()
    with socket.create_server((address[0], 0)) as free:
        jax_port = free.getsockname()[1]
    _send(_peers, {"jax_port": jax_port})
    return jax_port


def _call(address: tuple[str, int], num_processes: int, own: int) -> int:
    """Every other process calls process 0 until it answers; returns the port for JAX."""
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        try:
            peer = socket.create_connection(address, timeout=_JOIN_SECONDS)
            _send([peer], {"process": own, "processes": num_processes})
            answer = _receive(peer)
            break
        except _BROKEN as error:
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"--coordinator: {address[0]}:{address[1]} cannot be reached ({error}); start "
                    "process 0 there"
                ) from error
            time.sleep(0.2)
    if "error" in answer:
        raise UsageError(f"--process-id: {answer['error']}; start each process once")
    _peers[peer] = 0
    return answer["jax_port"]


def _watch(kept: str) -> None:
    """Listens to the others; when one is lost, names it and ends this process."""
    lost, due = {}, math.inf
    # A process that is leaving listens on, to know when the others have gone.
    while _leaving.is_set() or time.monotonic() < due:
        for message in _last_messages():
            if message["end"] and not lost:
                lost, due = message, time.monotonic() + message["patience"]
    _send(_peers, lost | {"patience": 0})  # only process 0 has any left
    if sys.stdout.isatty():
        os.write(1, b"\033[?25h\n")  # shows the cursor, which a progress bar has hidden
    error = f"error: process {lost['process']} {lost['end']}, so the run cannot go on; {kept}\n"
    os.write(2, error.encode())  # not print: the main thread may hold the lock of the stream
    end = time.monotonic() + _GRACE_SECONDS
    while any(_peers.values()) and time.monotonic() < end:
        list(_last_messages())
    os._exit(1)


def _last_messages() -> Iterator[Message]:
    """Listens for a moment; yields the last message of each that ends, or has died without one."""
    for peer in select.select([*_peers], [], [], 0.2)[0]:
        process = _peers.pop(peer)
        message = {"process": process, "end": "has died", "patience": process and _GRACE_SECONDS}
        with contextlib.suppress(*_BROKEN):
            message |= _receive(peer)
        yield message


def _send(peers: Iterable[socket.socket], message: Message) -> None:
    for peer in [*peers]:
        with contextlib.suppress(OSError):  # who is gone is found out by listening
            peer.sendall(to_json(message).encode() + b"\n")


def _receive(peer: socket.socket) -> Message:
    # Without a buffer, in which a second message would hide from select.
    with peer.makefile("rb", buffering=0) as lines:
        return dict(json.loads(lines.readline(1000)))
