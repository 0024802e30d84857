"""Quantities as people write them: ``50ms``, ``100Mbit``, ``124M``.

Numbers become seconds, bytes per second, and counts. Whatever leaves its unit open is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "min": 60.0,
    "h": 3600.0,
}  # fmt: skip
_PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMGT", start=1)}
_COUNTS = {**_PREFIXES, "m": 1e6, "b": 1e9, "B": 1e9, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(r"([-+]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)")


def seconds(text: str) -> float:
    """A time such as ``50ms``, in seconds; ``0`` and ``inf`` need no unit.

    Raises:
        ValueError: if it is no time, has no unit, or is negative.

    Example: ``assert cdjax.network.seconds("50ms") == 0.05``
    """
    return _quantity(text, _SECONDS, "a time, such as 50ms, 0.4s or 2min")


def bytes_per_second(text: str) -> float:
    """A bandwidth such as ``100Mbit`` or ``12.5MB``, in bytes per second; ``inf`` needs no unit.

    Bits are ``bit``, or ``bps`` for bits per second; bytes are ``B``. A lower-case ``b`` is either
    in what people write, and is refused.

    Raises:
        ValueError: if it is no bandwidth, leaves open whether it is of bits or bytes, or is not
            above 0.

    Example: ``assert cdjax.network.bytes_per_second("100Mbit") == 12.5e6``
    """
    wanted = "a bandwidth, such as 100Mbit or 12.5MB"
    bare = text.strip().removesuffix("/s")
    if bare.endswith("ps"):  # of "Mbps" the bits are certain, as of "MBps" the bytes
        bare = bare.removesuffix("ps").removesuffix("b") + "bit" * bare.endswith("bps")
    if bare.endswith("b"):
        raise ValueError(
            f"{text!r} leaves open whether it is of bits or bytes; write {bare[:-1]}bit or "
            f"{bare[:-1]}B"
        )
    units = {f"{p}B": factor for p, factor in (_PREFIXES | _BINARY).items()}
    units |= {f"{p}bit": factor / 8 for p, factor in (_PREFIXES | _BINARY).items()}
    value = _quantity(bare, units, wanted, shown=text)
    if value <= 0:
        raise ValueError(f"{text!r} is no bandwidth above 0; a link that is down has latency inf")
    return value


def count(text: str) -> int:
    """A number of things such as ``124M`` or ``1_000``; B and G are both 10⁹.

    Raises:
        ValueError: if it is no whole number of at least 0.

    Example: ``assert cdjax.network.count("124M") == 124_000_000``
    """
    wanted = "a number, such as 124M or 2168362"
    value = _quantity(text, _COUNTS, wanted)
    if not math.isfinite(value) or abs(value - round(value)) > 1e-9 * value:
        raise ValueError(f"{text!r} is no whole number; give {wanted}")
    return round(value)


def _quantity(
    text: str, units: Mapping[str, float], wanted: str, *, shown: str | None = None
) -> float:
    shown = text if shown is None else shown
    if text.strip().lower() == "inf":
        return math.inf
    match = _NUMBER.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{shown!r} is no number with a unit; give {wanted}")
    number, unit = match.groups()
    value = float(number.replace(",", "").replace("_", ""))
    if unit not in units and not (unit == "" and value == 0):
        found = f"the unit {unit!r} is none of {', '.join(filter(None, units))}"
        raise ValueError(f"{shown!r}: {found if unit else 'it has no unit'}; give {wanted}")
    if value < 0:
        raise ValueError(f"{shown!r} is negative; give {wanted}")
    return value * units.get(unit, 1.0)
