"""What files hold, told by their first bytes: browsers and tools change names and keep contents."""

from __future__ import annotations

import gzip
import os
import zlib

# What people have in place of the file that they mean.
_KINDS = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"(\xb5/\xfd": "compressed by zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "an array of numpy.save",
    b"version https://git-lfs": "a pointer of Git LFS, which stands for the file: run git lfs pull",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}


class UnreadableError(ValueError):
    """A compressed file that is truncated or damaged."""


def read(path: str | os.PathLike[str], limit: int) -> bytes:
    """A file's bytes, unpacked if gzip packed them, whatever the file's name.

    At most one byte more than the limit, which shows that there are more.

    Raises:
        UnreadableError: if the file is packed and cannot be unpacked.
    """
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not is_packed:
            return file.read(limit + 1)
        try:
            with gzip.open(file) as unpacked:
                return unpacked.read(limit + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UnreadableError(str(error)) from error


def kind_of(content: bytes | memoryview) -> str | None:
    """What the first bytes tell, for an error message; None if they tell nothing."""
    start = bytes(content[:64]).lstrip().lower()
    return next((kind for first, kind in _KINDS.items() if start.startswith(first.lower())), None)
