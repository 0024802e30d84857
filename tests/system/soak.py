"""Hours of training under random kills: ``python -m tests.system.soak --minutes 60``.

Two runs with the same options train side by side. One is killed with SIGKILL at random moments and
resumed, the other is left alone. Neither may need more and more memory or file handles, and both
must come to the same state, bit for bit. The program exits with 1 if anything of that fails.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from benchmarks._timing import report
from cdjax import checkpoint
from tests.system.forked import ROOT, arrays_of, only_folder, records_of

# Epochs of a quarter of a second, and a checkpoint of 26 MB every ten of them.
COMMAND = [
    sys.executable, "-m", "experiments.digits",
    *"--agents 4 --topology ring --model mlp --batch-size 16".split(),
    *"--eval-every 10 --checkpoint-every 10".split(),
]  # fmt: skip
# Without it glibc gives every thread a pool of its own, and what is freed in one serves no other:
# in two hours a run grew from 771 to 843 MB, with a single pool from 614 to 627.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
NAMES = ("whole", "killed")
# Age in seconds from which a process has compiled, trained and saved.
SETTLED = 20


@dataclass(frozen=True)
class Options:
    """Trains under random kills; watches memory, file handles and the end."""

    minutes: float = 60
    """How long the two runs train side by side; to catch up takes up to as long again."""
    mean_life: float = 60
    """Seconds between kills, on average; lives are uniform between 0 and twice that."""
    seed: int = 0
    """Of the moments of the kills."""
    tolerance: float = 0.05
    """The share by which memory may exceed what it was early on."""
    json: Path | None = None
    """Where to write the results as JSON."""


class Sample(NamedTuple):
    """What a process held at a moment: its run, its life's number and its age then."""

    seconds: float
    run: str
    life: int
    age: float
    megabytes: float
    handles: int


class Outcome(NamedTuple):
    """What was held on the way, the number of kills, and where the two runs ended apart."""

    samples: list[Sample]
    kills: int
    steps: int
    differences: list[str]


def main(options: Options) -> None:
    """Prints the table; exits with 1 if something grows or the ends differ."""
    outcome = soak(options)
    growth = {f"{name}_{what}": _growth(outcome.samples, name, what)
              for name in NAMES for what in ("megabytes", "handles")}  # fmt: skip
    flaws = outcome.differences + [
        f"{name} went from {early:g} to {late:g}"
        for name, (early, late) in growth.items()
        if late > early * (1 + options.tolerance if name.endswith("megabytes") else 1)
    ]
    report(
        f"{options.minutes:g} minutes, {outcome.kills} kills",
        _rows(outcome.samples, options.minutes * 60),
        options.json,
        early_and_late=growth,
        steps=outcome.steps,
        flaws=flaws or "none: nothing grows, and the ends are the same bit for bit",
    )
    if flaws:
        sys.exit(1)


def soak(options: Options) -> Outcome:
    """Trains both runs to the same step, one through kills; nothing runs on."""
    with tempfile.TemporaryDirectory() as scratch:
        outs = {name: Path(scratch) / name for name in NAMES}
        samples, kills = _train_side_by_side(options, outs)
        whole, step = only_folder(outs["whole"]), _last_step(outs["whole"])
        _finish(outs["killed"], whole, step)
        differences = _differences(only_folder(outs["killed"]), whole, step)
    return Outcome(samples, kills, step, differences)


def _train_side_by_side(options: Options, outs: dict[str, Path]) -> tuple[list[Sample], int]:
    """Samples of both runs, a second apart, and the number of kills."""
    draw, samples, life = random.Random(options.seed), [], 0
    start = time.monotonic()
    children = {name: _start(out) for name, out in outs.items()}
    born: dict[str, float] = {name: start for name in NAMES}
    death = start + draw.uniform(0, 2 * options.mean_life)
    try:
        while (now := time.monotonic()) < start + 60 * options.minutes:
            for name, child in children.items():
                _check_alive(child, outs[name])
                number = life if name == "killed" else 0
                held = _held(child.pid)
                samples.append(Sample(now - start, name, number, now - born[name], *held))
            if now > death:
                _kill(children["killed"])
                children["killed"], born["killed"] = _start(outs["killed"]), time.monotonic()
                death = born["killed"] + draw.uniform(0, 2 * options.mean_life)
                life += 1
            time.sleep(1)
        _kill(children["killed"])
        while _last_step(outs["whole"]) < max(1, _last_step(outs["killed"])):
            _check_alive(children["whole"], outs["whole"])
            time.sleep(1)
    finally:
        for child in children.values():
            _kill(child)
    return samples, life + 1


def _start(out: Path, epochs: int = 10**6) -> subprocess.Popen[bytes]:
    """Starts the run in a folder, or goes on with it."""
    begun = [path.parent for path in out.glob("*/config.json")]
    if not begun:  # a life may have ended between making its folder and writing into it
        shutil.rmtree(out, ignore_errors=True)
    place = ["--resume", begun[0]] if begun else ["--out", out]
    words = [*COMMAND, *place, "--epochs", str(epochs)]
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            words, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=log, stderr=log
        )


def _finish(out: Path, whole: Path, step: int) -> None:
    """Trains the killed run up to a step of the whole one."""
    found = checkpoint.find(whole / "checkpoints")
    assert found
    child = _start(out, epochs=step // found.notes["steps_per_epoch"])
    if child.wait():
        sys.exit(f"the last life ended with {child.returncode}:\n{_log(out)}")


def _check_alive(child: subprocess.Popen[bytes], out: Path) -> None:
    if child.poll() is not None:
        sys.exit(f"the {out.name} run ended by itself with {child.returncode}:\n{_log(out)}")


def _log(out: Path) -> str:
    return out.with_suffix(".log").read_text()[-2000:]


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _held(process: int) -> tuple[float, int]:
    """Resident memory in MB and the number of open file handles, by Linux's /proc."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    handles = len(os.listdir(f"/proc/{process}/fd"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, handles


def _last_step(out: Path) -> int:
    """Of the last whole checkpoint; 0 if there is none."""
    found = [checkpoint.find(folder) for folder in out.glob("*/checkpoints")]
    return max((one.step for one in found if one), default=0)


def _differences(killed: Path, whole: Path, step: int) -> list[str]:
    """What of the state and the records at a step is not the same bit for bit."""
    arrays, expected = arrays_of(killed, step), arrays_of(whole, step)
    names = sorted({*arrays} | {*expected})
    flaws = [f"{name} differs" for name in names if arrays.get(name) != expected.get(name)]
    records, others = (
        [record for record in records_of(folder) if record["step"] <= step]
        for folder in (killed, whole)
    )
    return flaws + ["records differ"] * (records != others)


def _growth(samples: Sequence[Sample], run: str, what: str) -> tuple[float, float]:
    """What was held early and late, by the settled samples.

    Of the whole run these are the medians of the second and the last fifth. Of the killed run they
    are the maxima of the two halves, since the memory of a life depends on how old it gets.
    Handles are the fewest, since a save in progress has more.
    """
    held = [getattr(s, what) for s in samples if s.run == run and s.age > SETTLED]
    if len(held) < 10:
        sys.exit(f"the {run} run has only {len(held)} settled samples; give more --minutes")
    whole, part = run == "whole", len(held) // (5 if run == "whole" else 2)
    early = held[part : 2 * part] if whole else held[:part]
    if what == "handles":
        return min(early), min(held[-part:])
    typical = statistics.median if whole else max
    return typical(early), typical(held[-part:])


def _rows(samples: Sequence[Sample], seconds: float, num_rows: int = 10) -> list[dict[str, Any]]:
    """What the settled processes held, by tenths of the time."""
    rows = []
    for i in range(num_rows):
        low, high = i * seconds / num_rows, (i + 1) * seconds / num_rows
        here = [s for s in samples if low <= s.seconds < high]
        row = {"to_minute": high / 60, "kills": max((s.life for s in here), default=0)}
        for name in NAMES:
            held = [s for s in here if s.run == name and s.age > SETTLED]
            row[f"{name}_MB"] = statistics.median(s.megabytes for s in held) if held else ""
            handles = [s.handles for s in held]
            row[f"{name}_handles"] = f"{min(handles)} to {max(handles)}" if held else ""
        rows.append(row)
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options))
