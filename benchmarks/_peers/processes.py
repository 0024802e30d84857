"""Programs in processes of their own, all alive and warm, one of them at work at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks._peers.problem import Fingerprint, Problem, disagreement, save

ROOT = Path(__file__).parents[2]
# What a process gets to keep the pages that it has freed; glibc's own way is to return them.
MALLOC: Mapping[str, Mapping[str, str]] = {
    "glibc": {},
    "kept": {
        "MALLOC_ARENA_MAX": "1",  # other threads' arenas give large blocks back
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        "MALLOC_TOP_PAD_": "268435456",
    },
}
# Threads that wait must not take the cores of the program whose turn it is, nor JAX all memory of
# a GPU.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_LINES = 12  # of what a process that fails says last


class Entrant(NamedTuple):
    """A program to run.

    Attributes:
        name: of the row.
        function: that makes the program of the problem, ``package.module:function``.
        package: whose version is told.
        options: the function's keyword arguments.
        malloc: a key of ``MALLOC``.
        python: the interpreter.
    """

    name: str
    function: str
    package: str
    options: Mapping[str, Any] = {}
    malloc: str = "glibc"
    python: str = sys.executable

    @property
    def label(self) -> str:
        """The name with the allocator."""
        return f"{self.name}, pages kept" if self.malloc == "kept" else self.name


class Times(NamedTuple):
    """Seconds per step of a program, wall and CPU, a number per turn; and its system's version."""

    version: str
    wall: list[float]
    cpu: list[float]


class ProgramError(Exception):
    """A program that ended, or that computes something else."""


class _Child(NamedTuple):
    process: subprocess.Popen[str]
    errors: Path


def compete(
    problem: Problem,
    entrants: Sequence[Entrant],
    *,
    turns: int,
    seconds: float = 0.2,
    tolerance: float = 5e-3,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Times], dict[str, str]]:
    """Times programs on one problem in alternating turns; each is first checked.

    Args:
        problem: the work.
        entrants: the programs. The first says what is right; without it there is nothing to time.
        turns: the number of turns of each program.
        seconds: the minimum length of a turn.
        tolerance: relative, of losses and of how far parameters move.
        say: is told which program starts.

    Returns:
        The times of the programs that are right, and what is wrong with the others, by label.

    Raises:
        ProgramError: if the first program fails.
    """
    children: dict[str, _Child] = {}
    versions: dict[str, str] = {}
    wrong: dict[str, str] = {}
    wanted: Fingerprint | None = None
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "problem.npz"
        save(problem, file)
        for entrant in entrants:
            say(f"starts {entrant.label}")
            errors = Path(folder) / f"{len(children) + len(wrong)}.log"
            child = stack.enter_context(_started(entrant, errors))
            try:
                found, versions[entrant.label] = _first_steps(child, entrant, file)
                wanted = wanted or found
                if reason := disagreement(found, wanted, tolerance=tolerance):
                    raise ProgramError(f"computes something else: {reason}")
                children[entrant.label] = child
            except ProgramError as error:
                if wanted is None:
                    raise ProgramError(f"{entrant.label}: {error}") from None
                wrong[entrant.label] = str(error)
                _end(child)
        times = {label: Times(versions[label], [], []) for label in children}
        for label, turn in _turns(children, turns, seconds=seconds, wrong=wrong):
            times[label].wall.append(turn["wall"])
            times[label].cpu.append(turn["cpu"])
    if (baseline := entrants[0].label) in wrong:
        raise ProgramError(f"{baseline}: {wrong[baseline]}")
    return {label: found for label, found in times.items() if label not in wrong}, wrong


def _turns(
    children: Mapping[str, _Child], turns: int, *, seconds: float, wrong: dict[str, str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """The times of each turn; programs that end meanwhile become wrong."""
    calls: dict[str, int] = {}
    for turn in range(-1, turns):  # the first one is not counted
        for label in [label for label in children if label not in wrong]:
            try:
                found = _ask(children[label], {"calls": calls.get(label, 1)})
            except ProgramError as error:
                wrong[label] = str(error)
                continue
            if turn < 0:
                calls[label] = max(1, int(seconds / found["wall"]))
            else:
                yield label, found


@contextmanager
def _started(entrant: Entrant, errors: Path) -> Iterator[_Child]:
    command = [entrant.python, "-m", "benchmarks._peers.worker"]
    environment = {**os.environ, **_ENVIRONMENT, **MALLOC[entrant.malloc]}
    with errors.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
            start_new_session=True,  # what it starts is in its group, and ends with it
        )  # fmt: skip
    child = _Child(process, errors)
    try:
        yield child
    finally:
        _end(child)


def _end(child: _Child) -> None:
    """Ends a process with those that it started, and gives its pipes back."""
    with suppress(ProcessLookupError):  # none of them is left
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
    for pipe in (child.process.stdin, child.process.stdout):
        with suppress(BrokenPipeError):  # of a message that the process did not read
            if pipe:
                pipe.close()


def _first_steps(child: _Child, entrant: Entrant, file: Path) -> tuple[Fingerprint, str]:
    """What a program does at first, and its system's version."""
    message = {"file": str(file), "function": entrant.function, "options": {**entrant.options}}
    found = _ask(child, {**message, "package": entrant.package})
    moved = {name: np.array(x) for name, x in found["moved"].items()}
    return Fingerprint(np.array(found["losses"]), moved), found["version"]


def _ask(child: _Child, message: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a message; a process that ends is an error with the end of what it said."""
    process = child.process
    assert process.stdin and process.stdout
    try:
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if not answer:
        code = process.wait()
        lines = child.errors.read_text(errors="replace").strip().splitlines()[-_LINES:]
        raise ProgramError("\n".join([f"ended with exit code {code}", *lines]))
    return json.loads(answer)
