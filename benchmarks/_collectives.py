"""What a compiled program sends, read from the collectives in its XLA text."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
_INSTRUCTION = re.compile(rf"= (.+?) ({_KINDS})(-start)?\((.*)")
_SHAPE = re.compile(r"\b([a-z]+)(\d+)\w*\[([\d,]*)\]")
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")


class Collective(NamedTuple):
    """A collective of a compiled program.

    Attributes:
        kind: such as ``all-gather``.
        num_bytes: the size of its result on one device.
        links: the pairs (sender, receiver) of a collective permute; empty for other kinds.
    """

    kind: str
    num_bytes: int
    links: list[tuple[int, int]]


def collectives(program: str) -> list[Collective]:
    """All collectives in the text of a compiled program, ``compiled.as_text()``."""
    found = []
    for line in program.splitlines():
        if match := _INSTRUCTION.search(line):
            result, kind, start, rest = match.groups()
            sizes = [_num_bytes(*shape) for shape in _SHAPE.findall(result)]
            if start and kind in ("all-gather", "collective-permute"):
                # The shape lists operands, results and, on some backends, one or two scalars of
                # context; only the results count.
                sizes = sizes[rest.split("), ")[0].count("%") :][: rest.split("), ")[0].count("%")]
            pairs = _PAIRS.search(rest)
            numbers = map(int, re.findall(r"\d+", pairs[1] if pairs else ""))
            found.append(Collective(kind, sum(sizes), list(zip(numbers, numbers, strict=True))))
    return found


def bytes_received(program: str, num_devices: int) -> list[int]:
    """The bytes that each device receives from others in a program's permutes and gathers."""
    received = [0] * num_devices
    for collective in collectives(program):
        match collective.kind:
            case "collective-permute":
                for sender, receiver in collective.links:
                    received[receiver] += collective.num_bytes * (sender != receiver)
            case "all-gather":
                foreign = collective.num_bytes * (num_devices - 1) // num_devices
                received = [total + foreign for total in received]
            case kind:
                raise ValueError(f"the program contains {kind}, whose bytes depend on the backend")
    return received


def _num_bytes(kind: str, bits: str, shape: str) -> int:
    return int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n)
