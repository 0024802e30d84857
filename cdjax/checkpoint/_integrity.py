"""CRC-32 checksums that detect truncated, corrupted or missing files.

They detect accidents and are no protection against forgery. ``hashlib.file_digest`` would save the
loop: SHA-256 takes 0.82 s per GB and CRC-32 0.58 s on a core with SHA instructions, where a save
takes 3.7 s per GB, so it would add 6 % to every save, and several times as much on other cores.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from cdjax._json import to_json

_NAME = "checksums.json"
_BLOCK = 1 << 20


def write_sums(folder: Path, paths: Iterable[Path]) -> None:
    """Writes the checksums of files below a folder into that folder; folders are skipped."""
    sums = {str(path.relative_to(folder)): _sum(path) for path in paths if path.is_file()}
    (folder / _NAME).write_text(to_json(sums))


def damage_in(folder: Path) -> str:
    """What is wrong with a folder's files; empty if they match their checksums."""
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
