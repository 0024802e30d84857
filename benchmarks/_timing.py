"""Fair timing: the programs take turns in one process, and ratios are taken turn by turn.

A machine's speed drifts by more than the differences of interest, so times from different runs are
never compared.
"""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cdjax._json import to_json


def alternate(
    programs: Mapping[str, Callable[[], Any]], *, turns: int = 7, seconds: float = 0.2
) -> dict[str, list[float]]:
    """Times programs in turn, A B A B ..., after one uncounted call of each.

    Args:
        programs: functions without arguments; each call is timed until its result is ready.
        turns: the number of counted turns of each program.
        seconds: the minimum length of a turn, in which a short program is called several times.

    Returns:
        Seconds per call, by program, one number per turn.
    """
    calls = {}
    for name, program in programs.items():
        jax.block_until_ready(program())
        calls[name] = max(1, int(seconds / _seconds(program, 1)))
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(turns):
        for name, program in programs.items():
            times[name].append(_seconds(program, calls[name]))
    return times


def ratio(times: Mapping[str, Sequence[float]], program: str, baseline: str) -> float:
    """The median over the turns of one program's time relative to the other's."""
    turns = zip(times[program], times[baseline], strict=True)
    return statistics.median(ours / theirs for ours, theirs in turns)


def matmul_peak(
    size: int = 2048, calls: int = 30, *, dtype: str = "float32", precision: str | None = None
) -> float:
    """Floating-point operations per second of a square matrix product, the best of some calls.

    Args:
        size: the matrices' number of rows and of columns.
        calls: the number of timed calls.
        dtype: in which to multiply.
        precision: that of ``jnp.matmul``; by default accelerators round float32 factors.
    """
    # Random numbers: a GPU multiplies ones faster, since constant bits take less power.
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=precision))
    best = min(_seconds(lambda: product(x), 1) for _ in range(calls))
    return 2.0 * size**3 / best


def report(
    title: str, rows: Sequence[Mapping[str, Any]], json_path: Path | None, **facts: Any
) -> None:
    """Prints the rows as a table, and writes them with machine, versions and command as JSON.

    Args:
        title: the table's title.
        rows: the results, all with the same columns.
        json_path: where to write the JSON; nothing is written if None.
        **facts: further results to record, such as the machine's matmul speed.
    """
    print_table(title, rows)
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
    if json_path:
        write_json(title, rows, json_path, **facts)


def write_json(
    title: str, rows: Sequence[Mapping[str, Any]], json_path: Path, **facts: Any
) -> None:
    """Writes results with machine, versions and command, see :func:`report`."""
    record = circumstances() | {"title": title, **facts, "rows": list(rows)}
    json_path.parent.mkdir(parents=True, exist_ok=True)
    json_path.write_text(to_json(record, indent=2) + "\n")


def circumstances() -> dict[str, Any]:
    """Date, command, machine, devices and versions; starts JAX's backend."""
    device = jax.devices()[0]
    module = sys.modules["__main__"].__spec__
    program = f"-m {module.name}" if module else sys.argv[0]
    return {
        "date": datetime.date.today().isoformat(),
        "command": f"python {program} {shlex.join(sys.argv[1:])}".strip(),
        "device": f"{len(jax.devices())} × {device.device_kind} ({device.platform})",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()}
        | {name: found for name in ("jax", "flax", "optax", "torch") if (found := _version(name))},
    }


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the rows as a table."""
    # Here, so that times can be taken where Rich is not installed.
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console().print(table)


def _seconds(program: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        result = program()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
