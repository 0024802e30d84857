"""What the processes of a run have to agree on: a signal, a folder, what they run."""

from __future__ import annotations

import json
import os
import signal
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from cdjax._json import to_json
from experiments.run.alike import Facts, difference
from experiments.run.errors import UsageError

_LONGEST_PATH = 1 << 13


def of_all(number: int) -> np.ndarray:
    """Every process's number, by process, in every process."""
    if jax.process_count() == 1:
        return np.array([number])
    return np.asarray(multihost_utils.process_allgather(np.int32(number))).reshape(-1)


def agreed(signals: Sequence[signal.Signals]) -> signal.Signals | None:
    """A signal that some process has caught, the same in all processes; None if there is none."""
    # Not multihost_utils.reached_preemption_sync_point: it knows SIGTERM only, and the processes
    # exchange the length of a dispatch at this place anyway.
    number = int(of_all(signals[0] if signals else 0).max())
    return signal.Signals(number) if number else None


def check_alike(facts: Facts) -> None:
    """Raises a UsageError in all processes if one of them has other facts."""
    if jax.process_count() == 1:
        return
    own = to_json(dict(facts)).encode()
    if len({*of_all(zlib.crc32(own) >> 1)}) == 1:
        return
    longest = int(of_all(len(own)).max())
    padded = np.frombuffer(own.ljust(longest), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(-1, longest)
    others = {i: json.loads(row.tobytes()) for i, row in enumerate(rows)}
    del others[jax.process_index()]
    if error := difference(facts, others):
        raise UsageError(error)


def common_folder(folder: Path | None) -> Path:
    """The folder that process 0 has made; raises a UsageError in a process that does not see it."""
    name = os.fsencode(folder.absolute()) if folder else b""
    if jax.process_count() > 1:
        padded = np.frombuffer(name.ljust(_LONGEST_PATH, b"\0"), np.uint8)
        name = multihost_utils.broadcast_one_to_all(padded).tobytes().rstrip(b"\0")
    found = Path(os.fsdecode(name))
    if not name or not found.is_dir():
        raise UsageError(
            f"--out: process {jax.process_index()} does not see the run's folder {found}; give a "
            "folder on a disk that all processes share, or leave --checkpoint-every out"
        )
    return found
