"""Several processes, one run: how they find each other, and how they learn that one has died.

JAX answers the loss of a peer with an abort in C++, or waits for ever. So with ``--coordinator``
the program that the user starts runs the experiment in a child and stays beside it as a watcher.
Every watcher keeps a connection to that of process 0, over which both ends say every few seconds
that they live. When a child or a watcher is gone, the others end their children and name the dead.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from experiments.run.config import Run
from experiments.run.errors import UsageError

Message = dict[str, Any]

_JOIN_SECONDS = 45.0
_BEAT_SECONDS = 3.0
_GRACE_SECONDS = 5.0
_SILENCE_SECONDS = 30.0
# Tells a child its number and where JAX's own coordinator is: "1@HOST:PORT".
_VARIABLE = "CDJAX_JAX_COORDINATOR"


def watch(config: Run) -> int | None:
    """Runs the whole program in a child that is watched, if it is one of several processes.

    Args:
        config: with ``coordinator``, ``num_processes`` and ``process_id`` to be one of several.

    Returns:
        The exit code for the watcher; None for a child, or a process that is alone, to go on.

    Raises:
        UsageError: if a number does not fit or the others are not found within a minute.
    """
    if not config.coordinator or _VARIABLE in os.environ:
        return None
    host, port = _checked(config)
    num_processes, own = config.num_processes or 1, config.process_id or 0
    if own:
        peer, answer = _greet((host, port), own, num_processes)
        peers, jax_port = {0: peer}, answer["jax_port"]
    else:
        peers, jax_port = _gather((host, port), num_processes)
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env=os.environ | {_VARIABLE: f"{own}@{host}:{jax_port}"},
        stdin=subprocess.PIPE,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well
    signal.signal(signal.SIGTERM, lambda number, frame: child.send_signal(number))
    kept = "the metrics so far are kept"
    if config.checkpoint_every:
        kept += "; start all processes again with --resume"
    return _watch(child, peers, own, kept)


def join(config: Run) -> None:
    """Joins this process to the others of the run, if there are any, before JAX finds its devices.

    The child of a watcher joins the processes of the options; without, whatever launcher JAX
    recognises (Slurm, Open MPI, a TPU pod) says who takes part.
    """
    import jax

    if _VARIABLE in os.environ:
        threading.Thread(target=_end_with_watcher, daemon=True).start()
        address = os.environ[_VARIABLE].partition("@")[2]
        jax.distributed.initialize(address, config.num_processes, config.process_id)
    else:
        with contextlib.suppress(ValueError):  # no launcher that JAX knows
            jax.distributed.initialize()
            # jax.distributed swallows the signal that schedulers send to end a program.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def await_verdict() -> None:
    """Leaves it to a watcher to name a peer's death as the cause of an error."""
    if _VARIABLE in os.environ:
        time.sleep(2 * _GRACE_SECONDS)


def leave(code: int) -> NoReturn:
    """Ends this process after an error.

    A usual exit of a process that JAX has joined to others waits for them, who wait for it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if _VARIABLE in os.environ:
        if os.environ[_VARIABLE].startswith("0@"):
            time.sleep(_GRACE_SECONDS)  # with it goes JAX's coordinator, and with that all others
        os._exit(code)
    sys.exit(code)


def _end_with_watcher() -> None:
    sys.stdin.read()  # until the watcher is gone
    os._exit(1)


def _checked(config: Run) -> tuple[str, int]:
    """The coordinator's host and port."""
    num_processes, process_id = config.num_processes, config.process_id
    if num_processes is None or process_id is None:
        raise UsageError("--coordinator: it takes --num-processes and --process-id beside it")
    if num_processes < 1:
        raise UsageError(f"--num-processes: {num_processes} is too few; give at least 1")
    if not 0 <= process_id < num_processes:
        raise UsageError(
            f"--process-id: {process_id} is none of {num_processes} processes; give 0 to "
            f"{num_processes - 1}"
        )
    host, _, port = str(config.coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator: {config.coordinator!r} is not of the form HOST:PORT")
    return host, int(port)


def _gather(address: tuple[str, int], num_processes: int) -> tuple[dict[int, socket.socket], int]:
    """Process 0 waits for all others and answers them together."""
    try:
        listener = socket.create_server(address)
    except OSError as error:
        raise UsageError(
            f"--coordinator: process 0 cannot listen at {address[0]}:{address[1]} "
            f"({error.strerror}); give an address of its own machine and a free port"
        ) from error
    with listener:
        peers: dict[int, socket.socket] = {}
        deadline = time.monotonic() + _JOIN_SECONDS
        while missing := sorted({*range(1, num_processes)} - {*peers}):
            if not select.select([listener], [], [], max(0, deadline - time.monotonic()))[0]:
                raise UsageError(
                    f"--num-processes: of {num_processes} processes {missing} did not come within "
                    f"{_JOIN_SECONDS:g} s; start each with the same --coordinator"
                )
            with contextlib.suppress(OSError, ValueError):  # a stranger, or one that went away
                peer, _ = listener.accept()
                peer.settimeout(_GRACE_SECONDS)
                hello = _hear(peer)
                process = hello.get("process")
                if hello.get("processes") != num_processes:
                    _say([peer], {"error": f"process 0 has --num-processes {num_processes}"})
                elif process not in missing:
                    _say([peer], {"error": f"there is a process {process} already"})
                else:
                    peers[process] = peer
    with socket.create_server((address[0], 0)) as free:
        jax_port = free.getsockname()[1]
    _say(peers.values(), {"jax_port": jax_port})
    return peers, jax_port


def _greet(
    address: tuple[str, int], process: int, num_processes: int
) -> tuple[socket.socket, Message]:
    """Every other process calls process 0 until it answers."""
    deadline, where = time.monotonic() + _JOIN_SECONDS, f"{address[0]}:{address[1]}"
    while True:
        try:
            peer = socket.create_connection(address, timeout=_GRACE_SECONDS)
            break
        except OSError as error:
            if time.monotonic() >= deadline:
                raise UsageError(
                    f"--coordinator: {where} cannot be reached ({error}); start process 0 there"
                ) from error
            time.sleep(0.2)
    try:
        peer.settimeout(_JOIN_SECONDS)
        _say([peer], {"process": process, "processes": num_processes})
        answer = _hear(peer)
    except (OSError, ValueError) as error:
        raise UsageError(f"--coordinator: no process 0 answers at {where} ({error})") from error
    if "error" in answer:
        raise UsageError(f"--process-id: {answer['error']}; start each process once")
    return peer, answer


def _watch(
    child: subprocess.Popen[bytes], peers: dict[int, socket.socket], own: int, kept: str
) -> int:
    """Waits for the child's end, or the death of a peer."""
    heard = dict.fromkeys(peers, time.monotonic())
    beat = ended = 0.0
    dead = None
    while dead is None:
        now = time.monotonic()
        code = child.poll()
        if code == 0:
            _say(peers.values(), {"leaving": True})
            return 0
        # A child that fails may be the first victim of a death that is not yet known here.
        ended = ended or (now if code is not None else 0.0)
        if ended and now > ended + _GRACE_SECONDS:
            dead = own
        if now > beat + _BEAT_SECONDS:
            _say(peers.values(), {})
            beat = now
        ready = select.select([*peers.values()], [], [], 0.2)[0]
        for process, peer in [*peers.items()]:
            try:
                message = _hear(peer) if peer in ready else {}
            except (OSError, ValueError):
                message = {"dead": process}
            if message.get("leaving"):
                del peers[process]
            elif peer in ready:
                heard[process] = now
            elif now > heard[process] + _SILENCE_SECONDS:
                message = {"dead": process}
            dead = message.get("dead", dead)
    _say(peers.values(), {"dead": dead})
    return _end(child, dead, own, kept)


def _end(child: subprocess.Popen[bytes], dead: int, own: int, kept: str) -> int:
    """Ends the child, unless it ends by itself of an error that all processes meet alike."""
    try:
        code = child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    if code > 0 and (dead == own or code == 2 or code > 128):  # it has said why
        return code
    show_cursor = "\033[?25h" if sys.stderr.isatty() else ""
    cause = f" (signal {-code})" if dead == own else ""
    print(
        f"{show_cursor}\nerror: process {dead} has died{cause}, so the run cannot go on; {kept}",
        file=sys.stderr,
    )
    return 1


def _say(peers: Iterable[socket.socket], message: Message) -> None:
    for peer in peers:
        with contextlib.suppress(OSError):  # who is gone is found out by listening
            peer.sendall(json.dumps(message).encode() + b"\n")


def _hear(peer: socket.socket) -> Message:
    line = b""
    while not line.endswith(b"\n"):
        received = peer.recv(1)
        if not received or len(line) > 1000:
            raise ConnectionError("the connection ended")
        line += received
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError(f"not a message: {message!r}")
    return message
