"""Compares an implementation's first ten rounds with the reference vectors.

``python check.py MINE.json``, with a file of the form of vectors.json that holds any of its
algorithms, each with a list of ten rounds of five numbers for a ``constant`` or a ``decaying`` step
size, or for both. Needs nothing but Python. Exits with 1 if something differs.
"""

import json
import sys
from pathlib import Path

TOLERANCE = 1e-9
STEPS = ("constant", "decaying")


def first_difference(found, expected):
    """The first round (from 1), agent and the two numbers that differ; None if none do."""
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=False), start=1):
        if len(mine) != len(theirs):
            raise SystemExit(f"round {number} has {len(mine)} numbers; give {len(theirs)}")
        for agent, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            if not abs(a - b) <= TOLERANCE:
                return number, agent, a, b
    return None


def lookalikes(reference, name, step):
    """What an algorithm may be mistaken for, and its rounds."""
    for trap in reference["traps"]:
        if trap["algorithm"] == name:
            yield f"as if {trap['mistake']}", trap[step]
    for other, rounds in reference["algorithms"].items():
        yield f"as {other}: {rounds['call']}", rounds[step]


def main(path):
    """Prints a line per algorithm and step size, and returns the exit code."""
    reference = json.loads((Path(__file__).parent / "vectors.json").read_text("utf-8"))
    mine = json.loads(Path(path).read_text("utf-8"))["algorithms"]
    known, code = reference["algorithms"], 0
    for name, found in mine.items():
        if name not in known:
            print(f"{name!r} is none of {', '.join(known)}", file=sys.stderr)
            return 2
        for step in STEPS:
            if step not in found:
                continue
            said = f"{name}, {step} step:"
            difference = first_difference(found[step], known[name][step])
            if difference is None:
                print(f"{said} agrees over {len(found[step])} rounds")
                continue
            code = 1
            number, agent, a, b = difference
            print(f"{said} differs first in round {number} at agent {agent}: {a!r}, not {b!r}")
            for other, rounds in lookalikes(reference, name, step):
                if first_difference(found[step], rounds) is None:
                    print(f"  {other}")
    return code


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python check.py MINE.json")
    raise SystemExit(main(sys.argv[1]))
