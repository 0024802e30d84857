"""A program in a process of its own: ``python -m benchmarks._peers.worker`` under another's lead.

It reads messages as lines of JSON and answers each with one. The first names the problem's file and
the program, a function of the problem; the answer is what its first steps do, and the version of a
package. The others ask for the time of some steps. It imports NumPy only, so the program's system
may be in an interpreter that has nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks._peers.problem import Program, fingerprint, load


def main() -> None:
    """Answers until the messages end."""
    # Answers have a channel of their own: what a system prints goes to stderr.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        messages = map(json.loads, sys.stdin)
        first = next(messages)
        program = _program(first["file"], first["function"], first["options"])
        found = fingerprint(program)
        moved = {name: x.tolist() for name, x in found.moved.items()}
        facts = {"losses": found.losses.tolist(), "moved": moved}
        _answer(answers, {**facts, "version": f"{first['package']} {version(first['package'])}"})
        for message in messages:
            _answer(answers, _timed(program, message["calls"]))


def _program(file: str, function: str, options: dict[str, Any]) -> Program:
    module, name = function.split(":")
    return getattr(importlib.import_module(module), name)(load(Path(file)), **options)


def _timed(program: Program, calls: int) -> dict[str, float]:
    """Wall and CPU seconds per call, the CPU's of all threads and of the processes it started."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    for _ in range(calls):
        program.step()
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    return {"wall": wall / calls, "cpu": cpu / calls}


def _cpu_seconds() -> float:
    """Of this process and of those below it, the latter in ticks of the kernel's clock."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # The name, in brackets, may hold blanks.
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            ticks[int(path.parent.name)] = int(fields[11]) + int(fields[12])
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    others = sum(ticks[pid] for pid in below - {os.getpid()})
    return time.process_time() + (others / os.sysconf("SC_CLK_TCK") if others else 0.0)


def _answer(channel: Any, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
