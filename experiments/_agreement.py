"""What the processes of a run have to agree on, beside the options that all are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments._errors import UsageError

Value = TypeVar("Value", bool, str)

_LONGEST = 1 << 13


def of_first_process(value: Value) -> Value:
    """What process 0 has, in every process."""
    if jax.process_count() == 1:
        return value
    text = json.dumps(value).encode()
    padded = np.frombuffer(text.ljust(_LONGEST), np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())


def common_folder(folder: Path | None) -> Path:
    """The folder that process 0 has made.

    Raises:
        UsageError: in a process that doesn't see it.
    """
    found = Path(of_first_process(str(folder and folder.absolute())))
    if not found.is_dir():
        raise UsageError(
            f"--out: process {jax.process_index()} does not see the run's folder {found}; give a "
            "folder on a disk that all processes share, or leave --checkpoint-every out"
        )
    return found
