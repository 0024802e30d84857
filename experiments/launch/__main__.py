"""One run by several processes of this machine: ``python -m experiments.launch --help``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from types import FrameType

from experiments.launch import secret
from experiments.launch.output import lossy_output
from experiments.run.interrupts import NAMES

_EPILOG = """example: python -m experiments.launch -- python -m experiments.cifar10 --agents 16

On several machines, start the program on each with --coordinator HOST:PORT, --num-processes and
--process-id, and with the same --secret-file."""
# Shorter than the 5 s after which processes name a peer that has died: here the signal is known.
_GRACE_SECONDS = 2.0
_SAVING_SECONDS = 60.0


def main() -> None:
    """Parses the options; exits as :func:`launch` says, or with 2 on a usage error."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch",
        description="Starts one run as several processes of this machine and watches over them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--num-processes", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("command", nargs="+", help="after --: the program and its options")
    options = parser.parse_args()
    if options.num_processes < 1:
        parser.error(f"--num-processes: {options.num_processes} is too few; give at least 1")
    with lossy_output():
        try:
            sys.exit(launch(options.command, options.num_processes))
        except OSError as error:
            parser.error(f"cannot start {options.command[0]}: {error.strerror}")


def launch(command: Sequence[str], num_processes: int) -> int:
    """Starts a command several times, as the processes of one run, and ends them together.

    Each copy gets ``--coordinator``, ``--num-processes`` and ``--process-id``, and a secret of the
    run in its environment. Signals that end a program are passed on. Process 0 writes where this
    process does. The errors of another process are shown only if it fails before process 0 does,
    its output not at all.

    Returns the exit code: 0 if all processes end well, else that of the first that does not.
    """
    children: list[subprocess.Popen[bytes]] = []
    forwarded: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        for child in children:
            child.send_signal(number)

    def all_ended() -> bool:
        return all(child.poll() is not None for child in children)

    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            signal.signal(number, forward)
    with socket.create_server(("127.0.0.1", 0)) as free:
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    common = ["--coordinator", coordinator, "--num-processes", str(num_processes), "--process-id"]
    environment = os.environ | {secret.VARIABLE: secret.fresh()}
    with contextlib.ExitStack() as stack:
        kept_back = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(num_processes)]
        for process, errors in enumerate(kept_back):
            child = subprocess.Popen(
                [*command, *common, str(process)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if process else None,
                stderr=errors if process else None,
                env=environment,
                process_group=0,  # else Ctrl-C would reach it from the terminal and from here
            )
            children.append(stack.enter_context(child))  # which waits for its end
            stack.callback(child.kill)
            for number in forwarded:  # before it was there
                child.send_signal(number)
        _wait_until(lambda: any(child.poll() for child in children) or all_ended())
        failed = [i for i, child in enumerate(children) if child.poll()]
        if not failed:
            return 0
        # A process that was killed is the cause where others have failed in the same moment.
        first = min(failed, key=lambda i: children[i].returncode > 0)
        code = children[first].returncode
        # The others have some time to end for the same reason.
        patience = _SAVING_SECONDS if forwarded else _GRACE_SECONDS * (code > 0)
        if not _wait_until(all_ended, patience):
            for child in children:
                child.terminate()
            _wait_until(all_ended, _GRACE_SECONDS)
        has_told = (code > 0 and (children[0].returncode or 0) > 0) or -code in forwarded
        if not has_told:
            kept_back[first].seek(0)
            sys.stderr.write(kept_back[first].read().decode(errors="replace"))
            if code != 2:  # a usage error is told in a line of its own
                _tell(first, code, command)
        return code if code > 0 else 128 - code


def _tell(process: int, code: int, command: Sequence[str]) -> None:
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    saves = any(word.startswith(("--checkpoint-every", "--resume")) for word in command)
    print(
        f"error: process {process} has died ({cause}), so the run cannot go on; the metrics so far "
        f"are kept{'; start again with --resume' if saves else ''}",
        file=sys.stderr,
    )


def _wait_until(condition: Callable[[], bool], seconds: float = float("inf")) -> bool:
    """Whether the condition holds before the time is over."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds


if __name__ == "__main__":
    main()
