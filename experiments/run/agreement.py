"""What the processes of a run have to agree on, beside the options that all are given."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.run.errors import UsageError

_LONGEST_PATH = 1 << 13


def of_all(number: int) -> np.ndarray:
    """Every process's number, by process, in every process."""
    if jax.process_count() == 1:
        return np.array([number])
    return np.asarray(multihost_utils.process_allgather(np.int32(number))).reshape(-1)


def agreed(signals: Sequence[signal.Signals]) -> signal.Signals | None:
    """A signal that some process has caught, the same in all; None if there is none."""
    number = int(of_all(signals[0] if signals else 0).max())
    return signal.Signals(number) if number else None


def common_folder(folder: Path | None) -> Path:
    """The folder that process 0 has made.

    Raises:
        UsageError: in a process that doesn't see it.
    """
    name = str(folder and folder.absolute()).encode()
    if jax.process_count() > 1:
        padded = np.frombuffer(name.ljust(_LONGEST_PATH, b"\0"), np.uint8)
        name = multihost_utils.broadcast_one_to_all(padded).tobytes().rstrip(b"\0")
    found = Path(name.decode())
    if not found.is_dir():
        raise UsageError(
            f"--out: process {jax.process_index()} does not see the run's folder {found}; give a "
            "folder on a disk that all processes share, or leave --checkpoint-every out"
        )
    return found
