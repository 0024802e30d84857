"""Sums of files (CRC-32), by which a folder that was cut, garbled or robbed is found out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

_NAME = "checksums.json"
_BLOCK = 1 << 20


def write_sums(folder: Path, paths: Iterable[Path]) -> None:
    """Writes the sums of some files below a folder into the folder; other paths are passed by."""
    sums = {str(path.relative_to(folder)): _sum(path) for path in paths if path.is_file()}
    (folder / _NAME).write_text(json.dumps(sums))


def flaw_of(folder: Path) -> str:
    """What is wrong with a folder's files, '' if nothing is."""
    try:
        sums = json.loads((folder / _NAME).read_text())
        for name, (size, total) in sums.items():
            found_size, found_total = _sum(folder / name)
            if found_size != size:
                return f"{name} has {found_size} bytes, not {size}"
            if found_total != total:
                return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(error.filename).relative_to(folder)} is missing"
    except (OSError, ValueError, AttributeError, TypeError):
        return f"{_NAME} cannot be read"
    return ""


def _sum(path: Path) -> list[int]:
    """The size and the CRC-32 of a file."""
    size = total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size, total = size + len(block), zlib.crc32(block, total)
    return [size, total]
