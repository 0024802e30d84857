"""All that one accelerator can tell in minutes: ``python -m benchmarks.accelerator``.

The sections come in the order of their value, and each has a share of the time. Results are written
after every row, so that nothing is lost when time ends. On a CPU the same sections run in
miniature. It needs jax, flax, optax, orbax, networkx and NumPy alone; a section that needs more
says what it lacks.
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks._sections import capacity, checks, compiling, mixing, peers, runs, steps
from benchmarks._sections.setting import Options, Row, Setting, failure
from benchmarks._timing import circumstances
from cdjax._json import to_json


class Section(NamedTuple):
    """A row of the table of sections: its letter, its share of the time, and what it does."""

    letter: str
    share: float
    run: Callable[[Setting], None]


SECTIONS = {
    "tests": Section("a", 20, checks.tests),
    "cnn": Section("b", 36, steps.cnn),
    "products": Section("c", 8, steps.products),
    "mixing": Section("d", 13, mixing.mix),
    "torch": Section("e", 8, peers.torch),
    "capacity": Section("f", 6, capacity.fit),
    "runs": Section("g", 5, runs.runs),
    "compiling": Section("h", 4, compiling.compiling),
}


class Results:
    """The results so far, kept in a file that is whole at any time."""

    def __init__(self, options: Options) -> None:
        self.start = time.monotonic()
        self.end = self.start + 60 * options.minutes
        self._path, self._lock = options.json, threading.Lock()
        asked = {name: str(value) for name, value in vars(options).items()}
        self._contents: dict[str, Any] = {"title": __doc__.split("\n")[0], "options": asked}
        self._contents["sections"] = {}
        options.json.parent.mkdir(parents=True, exist_ok=True)

    def add(self, **facts: Any) -> None:
        """Adds facts beside the sections."""
        with self._lock:
            self._contents |= facts
            self._write()

    def add_section(self, name: str, **facts: Any) -> None:
        """Adds a section, or facts to it."""
        with self._lock:
            section = self._contents["sections"].setdefault(name, {"rows": []})
            section |= facts
            self._write()
        self.say(name, ", ".join(f"{fact}={_short(value)}" for fact, value in facts.items()))

    def add_row(self, name: str, row: Row) -> None:
        """Adds a row to a section; one that is there has more columns."""
        with self._lock:
            rows = self._contents["sections"][name]["rows"]
            if not any(row is old for old in rows):
                rows.append(row)
            self._write()
        self.say(name, ", ".join(f"{column}={_short(value)}" for column, value in row.items()))

    def say(self, name: str, line: str) -> None:
        """Prints a line of progress."""
        print(f"[{time.monotonic() - self.start:6.1f} s] {name}: {line}", flush=True)

    def _write(self) -> None:
        self._contents["seconds"] = time.monotonic() - self.start
        draft = self._path.with_name(f"{self._path.name}.tmp")
        draft.write_text(to_json(self._contents, indent=1, default=str) + "\n")
        draft.replace(self._path)


def main(options: Options) -> None:
    """Runs the sections one after another."""
    # Before the first program: compile times are those of an empty cache.
    jax.config.update("jax_enable_compilation_cache", False)
    results = Results(options)
    late = threading.Timer(60 * options.minutes + options.grace, partial(_end_late, results))
    late.daemon = True
    late.start()
    wanted = wanted_sections(options)
    for name in wanted:
        results.add_section(name)
    for i, name in enumerate(wanted):
        left = results.end - time.monotonic()
        budget = left * SECTIONS[name].share / sum(SECTIONS[n].share for n in wanted[i:])
        _run_section(results, options, name=name, budget=budget)
        if not i:  # not before: the tests come first, and have the device to themselves
            results.add(**_machine())
    results.add(finished=True)
    late.cancel()


def wanted_sections(options: Options) -> list[str]:
    """The sections that the options name, by letter or name; all if they name none."""
    asked = {*(options.sections or SECTIONS)}
    return [name for name, section in SECTIONS.items() if asked & {name, section.letter}]


def _run_section(results: Results, options: Options, *, name: str, budget: float) -> None:
    start = time.monotonic()
    setting = Setting(options, start + budget, partial(results.add_row, name))
    results.say(name, f"has {budget:.0f} s: {SECTIONS[name].run.__doc__}")
    facts: Row = {}
    try:
        SECTIONS[name].run(setting)
    except Exception as error:
        facts = failure(error)
    gc.collect()
    results.add_section(name, budget=budget, seconds=time.monotonic() - start, **facts)


def _machine() -> Row:
    statistics = jax.devices()[0].memory_stats() or {}
    return circumstances() | {"memory": statistics, "xla_flags": os.environ.get("XLA_FLAGS", "")}


def _end_late(results: Results) -> None:
    """Ends the process in the middle of a row, which may be one that would never end."""
    results.add(finished=False)
    results.say("end", "time is over")
    os._exit(0)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) if len(str(value)) < 160 else f"{str(value)[:160]} ..."


def _parsed() -> Options:
    lines = [f"  {s.letter} {name:10} {s.run.__doc__}" for name, s in SECTIONS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        epilog="\n".join(["sections:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--minutes", type=float, default=8.0, help="time of all (default: 8)")
    parser.add_argument("--sections", default="", help="which, such as b,d (default: all)")
    parser.add_argument("--data-dir", type=Path, help="folder with Fashion-MNIST's archive files")
    parser.add_argument("--tests", nargs="*", default=(), help="files (default: all with a mark)")
    parser.add_argument(
        "--grace", type=float, default=10.0,
        help="seconds that the last row may take beyond the time (default: 10)",
    )  # fmt: skip
    given = parser.parse_args()
    sections = tuple(filter(None, given.sections.split(",")))
    known = {*SECTIONS, *(section.letter for section in SECTIONS.values())}
    if unknown := {*sections} - known:
        parser.error(f"--sections: no such sections: {', '.join(sorted(unknown))}")
    return Options(**vars(given) | {"sections": sections, "tests": tuple(given.tests)})


if __name__ == "__main__":
    main(_parsed())
