"""What the sections share: the time that is left, the size of the machine, and where rows go."""

from __future__ import annotations

import functools
import gc
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

from benchmarks._timing import alternate, matmul_peak

Value = TypeVar("Value")
Row = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command was asked."""

    json: Path
    minutes: float = 8.0
    sections: tuple[str, ...] = ()
    data_dir: Path | None = None
    tests: tuple[str, ...] = ()
    grace: float = 10.0


@dataclass
class Setting:
    """What a section is given.

    Attributes:
        options: those of the command.
        deadline: when the section should end, on the clock of ``time.monotonic``.
        record: keeps a row; what is recorded is on the disk when it returns.
        longest: seconds of the longest row so far.
    """

    options: Options
    deadline: float
    record: Callable[[Row], None]
    longest: float = 0.0

    @property
    def is_small(self) -> bool:
        """Whether this is a CPU, where all sizes are small."""
        return jax.default_backend() == "cpu"

    def sized(self, large: Value, small: Value) -> Value:
        """The first on an accelerator, the second on a CPU."""
        return small if self.is_small else large

    def time_left(self) -> float:
        """Seconds to the section's deadline."""
        return self.deadline - time.monotonic()

    def attempt(
        self, facts: Row, measure: Callable[[], Row], *, least_seconds: float = 1.0
    ) -> Row | None:
        """Records the facts with what is measured, or with the error, or that time is short.

        Time is short if less is left than ``least_seconds``, or than half of what the longest row
        took.

        Returns:
            What was measured, None without success.
        """
        if self.time_left() < max(least_seconds, self.longest / 2):
            self.record({**facts, "skipped": f"{self.time_left():.1f} s are left"})
            return None
        start, measured = time.monotonic(), None
        try:
            measured = measure()
            found = measured
        except Exception as error:
            found = failure(error)
        gc.collect()  # arrays that the traceback held
        seconds = time.monotonic() - start
        self.longest = max(self.longest, seconds)
        self.record({**facts, **found, "row_seconds": seconds})
        return measured

    def times(self, programs: Mapping[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """Seconds per call, the programs in turn."""
        turns, seconds = self.sized((5, 0.05), (3, 0.005))
        return alternate(programs, turns=turns, seconds=seconds)

    def peak(self, kind: str) -> float:
        """Operations per second of the best matrix product of a kind, see ``PRECISIONS``."""
        return _peak(kind, self.sized(8192, 512))


# kind: dtype of the arithmetic, precision. On accelerators float32 factors are rounded (to TF32 on
# a GPU, to bfloat16 on a TPU) unless the precision is highest.
PRECISIONS: Mapping[str, tuple[str, str | None]] = {
    "float32": ("float32", None),
    "float32 highest": ("float32", "highest"),
    "bfloat16": ("bfloat16", None),
}


@functools.cache
def _peak(kind: str, size: int) -> float:
    dtype, precision = PRECISIONS[kind]
    return matmul_peak(size, 10, dtype=dtype, precision=precision)


def failure(error: BaseException) -> Row:
    """An error as columns: its type, its message and the end of its traceback."""
    lines = traceback.format_exception(error)[-4:]
    return {
        "error": type(error).__name__,
        "message": str(error)[:500],
        "traceback": "".join(lines)[-1500:],
    }


def compiled(step: Any, shapes: Any) -> tuple[Any, float]:
    """The compiled program of a jitted function, and the seconds that tracing and compiling took.

    Args:
        step: the jitted function.
        shapes: its arguments, or their shapes.
    """
    start = time.perf_counter()
    program = step.lower(*shapes).compile()
    return program, time.perf_counter() - start


def bytes_needed(program: Any) -> int:
    """Bytes of a compiled program on its device: arguments, results and what lies between."""
    found = program.memory_analysis()
    apart = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + found.temp_size_in_bytes + apart


def device_bytes() -> float:
    """Bytes that programs may take on the first device; infinite if it does not say."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("bytes_limit", math.inf)
