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
    """Wall and CPU seconds per call, the CPU's of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        program.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall / calls, "cpu": cpu / calls}


def _answer(channel: Any, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
