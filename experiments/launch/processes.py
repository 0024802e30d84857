"""Several processes, one run: how they find each other, and how they learn that one has died.

JAX answers the loss of a process with an abort in C++ after 100 s, or it waits forever. So every
process also keeps a TCP connection to process 0, and a thread that listens to it: JAX releases the
GIL while it waits for other processes. All of them know a secret, which they prove to each other
before anything is said (channel.py).

*Meeting.* Process i calls process 0 at ``--coordinator`` with ``{"process": i, "processes": N,
"facts": ...}``, where the facts are its options and its code. When all have come, process 0 answers
``{"jax_port": port}``, where JAX's own coordinator will be, or ``{"error": text}`` where the facts
differ. A stranger is turned away, and nobody is let in later.

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
import math
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from typing import NoReturn

from experiments.launch import secret
from experiments.launch.channel import BROKEN, Channel, Message, Refused, answered, called
from experiments.run.alike import Facts, difference
from experiments.run.config import Machine
from experiments.run.errors import UsageError, flag

_JOIN_SECONDS = 45.0
_GRACE_SECONDS = 5.0
_SAVING_SECONDS = 60.0
# The kernel probes after 10 s of silence, then every 5 s; macOS has another name for the first.
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
# Of more callers than this who have not proven themselves, the longest silent is turned away.
_MOST_CALLERS = 64

# The process at the other end of each connection, until it ends.
_peers: dict[Channel, int] = {}
_joined, _leaving = threading.Event(), threading.Event()


def join(machine: Machine, *, kept: str, facts: Facts | None = None) -> None:
    """Joins this process to the others of the run, if there are any, before JAX finds its devices.

    With ``coordinator`` these are the processes that the options name. Without it, a launcher that
    JAX recognises (Slurm, Open MPI, a TPU pod) says who takes part. ``kept`` is what is left of the
    run when a process has died, for the error message; ``facts`` are those that all processes must
    share, see :func:`experiments.run.alike.facts`.

    Raises:
        UsageError: if a number does not fit, the others are not found within a minute, or their
            facts are not those of this process.
    """
    num_processes, own = machine.num_processes, machine.process_id
    address = _meet(machine, facts or {})
    if address:
        threading.Thread(target=_watch, args=(kept,), daemon=True).start()
        _joined.set()
    import jax

    if address:
        # By default JAX's coordinator would listen in all networks of the machine.
        bind = None if own else address
        jax.distributed.initialize(address, num_processes, own, coordinator_bind_address=bind)
        # JAX's own exit comes after this and waits for the others, so they are watched until then.
        atexit.register(_send, [*_peers], {"end": ""})
    else:
        with contextlib.suppress(ValueError):  # no launcher that JAX knows
            jax.distributed.initialize()
    if jax.distributed.is_initialized():
        # It swallows the signal that schedulers send to end a program.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def are_several() -> bool:
    """Whether this process has joined others."""
    import jax

    return jax.process_count() > 1


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


def _meet(machine: Machine, facts: Facts) -> str | None:
    """Connects this process to the others, if any; returns the address of JAX's coordinator."""
    coordinator, num_processes = machine.coordinator, machine.num_processes
    own = machine.process_id
    if coordinator is None:
        for name in ("num_processes", "process_id", "secret_file"):
            if getattr(machine, name) is not None:
                raise UsageError(f"{flag(name)}: it takes --coordinator beside it")
        return None
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
    address, word = (host, int(port)), secret.given(machine.secret_file)
    if own:
        hello = {"process": own, "processes": num_processes, "facts": dict(facts)}
        jax_port = _call(address, word, hello)
    else:
        jax_port = _gather(address, word, num_processes, facts)
    for channel in _peers:
        channel.peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in _KEEPALIVE.keys() & vars(socket):
            channel.peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), _KEEPALIVE[name])
    return f"{host}:{jax_port}"


def _gather(address: tuple[str, int], word: bytes, num_processes: int, facts: Facts) -> int:
    """Process 0 waits for all others and answers them together; returns the port for JAX."""
    try:
        listener = socket.create_server(address)
    except OSError as error:
        raise UsageError(
            f"--coordinator: process 0 cannot listen at {address[0]}:{address[1]} "
            f"({error.strerror}); give an address of its own machine and a free port"
        ) from error
    all_facts = {0: facts}
    callers = _callers(listener, word, time.monotonic() + _JOIN_SECONDS)
    with listener, contextlib.closing(callers):
        while missing := sorted({*range(1, num_processes)} - {*_peers.values()}):
            try:
                channel, hello = next(callers)
            except StopIteration as end:
                strangers = f" (callers with another secret: {end.value})" if end.value else ""
                raise UsageError(
                    f"--num-processes: of {num_processes} processes {missing} did not come within "
                    f"{_JOIN_SECONDS:g} s{strangers}; start each with the same --coordinator"
                ) from None
            if hello["processes"] == num_processes and hello["process"] in missing:
                _peers[channel] = hello["process"]
                all_facts[hello["process"]] = hello["facts"]
                continue
            error = f"--process-id: there is a process {hello['process']} already"
            if hello["processes"] != num_processes:
                error = f"--num-processes: process 0 has {num_processes}"
            _send([channel], {"error": f"{error}; start each process once"})
            channel.peer.close()
    return _answer(address[0], all_facts)


def _answer(host: str, all_facts: dict[int, Facts]) -> int:
    """Answers all processes together; raises a UsageError in all if their facts differ."""
    errors = {}
    for process, own in all_facts.items():
        others = {i: facts for i, facts in sorted(all_facts.items()) if i != process}
        errors[process] = difference(own, others)
    if any(errors.values()):
        for channel, process in _peers.items():
            _send([channel], {"error": errors[process]})
        raise UsageError(errors[0])
    with socket.create_server((host, 0)) as free:
        jax_port = free.getsockname()[1]
    _send(_peers, {"jax_port": jax_port})
    return jax_port


def _callers(
    listener: socket.socket, word: bytes, deadline: float
) -> Generator[tuple[Channel, Message], None, int]:
    """Those who call with the secret, each with its first message; returns how many had another.

    Every caller is heard in a thread, so that one who says nothing, or slowly, keeps nobody
    waiting.
    """
    heard: queue.SimpleQueue[tuple[socket.socket, Channel, Message] | None] = queue.SimpleQueue()
    waiting: dict[socket.socket, None] = {}  # in the order in which they came
    num_strangers = 0
    listener.settimeout(0.05)

    def hear(peer: socket.socket) -> None:
        with contextlib.suppress(*BROKEN):
            try:
                channel = answered(peer, word)
                heard.put((peer, channel, _checked(channel.receive(_GRACE_SECONDS))))
                return
            except Refused:
                heard.put(None)
        peer.close()

    def turn_away(peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            peer.shutdown(socket.SHUT_RDWR)  # which wakes its thread

    try:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # nobody in this moment, or one who is gone already
                peer, _ = listener.accept()
                waiting = {other: None for other in waiting if other.fileno() >= 0}
                if len(waiting) >= _MOST_CALLERS:
                    longest = next(iter(waiting))
                    del waiting[longest]
                    turn_away(longest)
                waiting[peer] = None
                threading.Thread(target=hear, args=(peer,), daemon=True).start()
            while not heard.empty():
                found = heard.get()
                if found is None:
                    num_strangers += 1
                elif found[0] in waiting:  # else it was turned away in this moment, and calls again
                    del waiting[found[0]]
                    yield found[1:]
        return num_strangers
    finally:
        for peer in waiting:
            turn_away(peer)


def _checked(hello: Message) -> Message:
    """The first message of a process, if it is one; raises a ValueError if not."""
    process, processes, facts = (hello[name] for name in ("process", "processes", "facts"))
    if type(process) is not int or type(processes) is not int or not isinstance(facts, dict):
        raise ValueError("no hello")
    return hello


def _call(address: tuple[str, int], word: bytes, hello: Message) -> int:
    """Every other process calls process 0 until it answers; returns the port for JAX."""
    deadline, where = time.monotonic() + _JOIN_SECONDS, f"{address[0]}:{address[1]}"
    while True:
        peer = None
        try:
            peer = socket.create_connection(address, timeout=_JOIN_SECONDS)
            channel = called(peer, word)
            channel.send(hello)
            answer = channel.receive(_JOIN_SECONDS)
            break
        except BROKEN as error:
            if peer:
                peer.close()
            if isinstance(error, Refused):
                raise UsageError(
                    f"--secret-file: process 0 at {where} has another secret; give all processes "
                    f"the same file, or the same {secret.VARIABLE}"
                ) from error
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"--coordinator: {where} cannot be reached ({error}); start process 0 there"
                ) from error
            time.sleep(0.2)
    if "error" in answer:
        raise UsageError(answer["error"])
    _peers[channel] = 0
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
    # JAX's threads may learn of the loss later; nothing that they say comes below this line.
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.write(stderr, error.encode())  # not print: the main thread may hold the lock of the stream
    end = time.monotonic() + _GRACE_SECONDS
    while any(_peers.values()) and time.monotonic() < end:
        list(_last_messages())
    os._exit(1)


def _last_messages() -> Iterator[Message]:
    """Listens for a moment; yields the last message of each that ends, or has died without one."""
    for channel in select.select([*_peers], [], [], 0.2)[0]:
        process = _peers.pop(channel)
        message = {"process": process, "end": "has died", "patience": process and _GRACE_SECONDS}
        with contextlib.suppress(*BROKEN):
            message |= channel.receive(_GRACE_SECONDS)
        yield message


def _send(channels: Iterable[Channel], message: Message) -> None:
    for channel in [*channels]:
        with contextlib.suppress(OSError):  # who is gone is found out by listening
            channel.send(message)
