"""The data sets' standard archive files, read with NumPy alone and trusted in nothing.

IDX files of the MNIST family: http://yann.lecun.com/exdb/mnist. CIFAR-10 and CIFAR-100 in their
Python and binary versions: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, UInt8


class DataCorruptError(ValueError):
    """A data file that is truncated or not what its name says; the message names it."""


class Split(NamedTuple):
    """The training or the test half of a data set: uint8 images, int32 labels."""

    images: UInt8[np.ndarray, "samples height width channels"]
    labels: Int[np.ndarray, " samples"]


class Cifar(NamedTuple):
    """The layout of one CIFAR data set's archives."""

    folder: dict[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    images_a_file: tuple[int, int]
    label_bytes: int
    label_key: bytes
    num_classes: int


CIFAR = {
    "cifar10": Cifar(
        folder={"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"},
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        images_a_file=(10_000, 10_000),
        label_bytes=1,
        label_key=b"labels",
        num_classes=10,
    ),
    "cifar100": Cifar(
        folder={"python": "cifar-100-python", "binary": "cifar-100-binary"},
        train=("train",),
        test=("test",),
        images_a_file=(50_000, 10_000),
        label_bytes=2,
        label_key=b"fine_labels",
        num_classes=100,
    ),
}
MNIST_COUNTS = {"train": 60_000, "t10k": 10_000}
# Both data sets' files have the same names and sizes; their first labels tell them apart.
MNIST_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
_PIXELS = 32 * 32 * 3


def archive_names(name: str) -> list[str]:
    """The file names that a user may provide for a data set."""
    if name in CIFAR:
        return [f"cifar-{CIFAR[name].num_classes}-{kind}.tar.gz" for kind in ("python", "binary")]
    return [
        f"{split}-{kind}.gz"
        for split in MNIST_COUNTS
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]


def read_archives(name: str, folder: Path) -> tuple[Split, Split] | None:
    """Reads a data set from its archive files in a folder.

    Args:
        name: cifar10, cifar100, mnist or fashion_mnist.
        folder: where the files lie.

    Returns:
        Training and test split; None if the folder has none of the files.

    Raises:
        DataCorruptError: if a file is missing beside others of the set, truncated or damaged.
    """
    return _read_cifar(name, folder) if name in CIFAR else _read_mnist(name, folder)


def _read_mnist(name: str, folder: Path) -> tuple[Split, Split] | None:
    found = {file: _find_idx(folder, file.removesuffix(".gz")) for file in archive_names(name)}
    paths = [path for path in found.values() if path]
    if not paths:
        return None
    if missing := [file for file, path in found.items() if not path]:
        raise DataCorruptError(f"{folder} lacks {', '.join(missing)}; put it beside the others")
    train, test = MNIST_COUNTS.values()
    splits = (
        Split(_read_idx_images(paths[0], train), _read_idx_labels(paths[1], train)),
        Split(_read_idx_images(paths[2], test), _read_idx_labels(paths[3], test)),
    )
    first_labels = tuple(splits[0].labels[:10].tolist())
    for other, labels in MNIST_FIRST_LABELS.items():
        if other != name and first_labels == labels:
            raise DataCorruptError(
                f"{folder} holds {other}, not {name}; keep each in a folder of its own name"
            )
    return splits


def _find_idx(folder: Path, file: str) -> Path | None:
    spellings = [file, file.replace("-idx", ".idx")]
    paths = [folder / f"{spelling}{ending}" for spelling in spellings for ending in (".gz", "")]
    return next((path for path in paths if path.is_file()), None)


def _read_idx_images(path: Path, count: int) -> np.ndarray:
    return _read_idx(path, (count, 28, 28))[..., None]


def _read_idx_labels(path: Path, count: int) -> np.ndarray:
    return _checked_labels(_read_idx(path, (count,)), 10, path)


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    magic = bytes([0, 0, 8, len(shape)])  # 8 stands for bytes
    start = 4 + 4 * len(shape)
    content = _contents(path, start + math.prod(shape))
    if content[:4] != magic:
        raise DataCorruptError(
            f"{path} is another kind of file: it begins with {content[:4].hex()}, not {magic.hex()}"
        )
    found = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if found != shape and len(content) >= start:
        raise DataCorruptError(f"{path} announces the shape {found}, not {shape}")
    _check_size(len(content), start + math.prod(shape), path)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_cifar(name: str, folder: Path) -> tuple[Split, Split] | None:
    layout = CIFAR[name]
    for archive, kind, read in zip(
        archive_names(name), layout.folder, (_read_pickled, _read_binary), strict=True
    ):
        path = folder / archive
        if path.is_file():
            return _read_cifar_archive(layout, layout.folder[kind], read, path)
    return None


def _read_cifar_archive(
    layout: Cifar, folder: str, read: Callable[..., Split], path: Path
) -> tuple[Split, Split]:
    train_count, test_count = layout.images_a_file
    num_images = train_count * len(layout.train) + test_count * len(layout.test)
    # File names and headers stand beside the pixels, and Python 3 may spell a byte in two; a file
    # beyond that is no CIFAR, but a bomb.
    limit = num_images * (2 * _PIXELS + 256) + 2**20
    content = memoryview(_contents(path, limit))
    if len(content) > limit:
        raise DataCorruptError(f"{path} unpacks to more than {limit} bytes; fetch it again")
    members = _tar_members(content, path)

    def read_all(names: tuple[str, ...], count: int) -> Split:
        splits = []
        for name in names:
            member = members.get(f"{folder}/{name}", members.get(f"{folder}/{name}.bin"))
            if member is None:
                raise DataCorruptError(f"{path} lacks {folder}/{name}; fetch it again")
            splits.append(read(member, count, layout, path))
        return _joined(splits)

    return read_all(layout.train, train_count), read_all(layout.test, test_count)


def _tar_members(content: memoryview, path: Path) -> dict[str, memoryview]:
    """The archive's plain files, in memory: nothing is unpacked to the disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            return {
                entry.name.removeprefix("./"): content[entry.offset_data :][: entry.size]
                for entry in tar
                if entry.isfile()
            }
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataCorruptError(f"{path} is no readable tar archive: {error}") from error


def _read_binary(member: memoryview, count: int, layout: Cifar, path: Path) -> Split:
    _check_size(len(member), count * (layout.label_bytes + _PIXELS), path)
    rows = np.frombuffer(member, np.uint8).reshape(count, -1)
    labels = rows[:, layout.label_bytes - 1]  # CIFAR-100 has the coarse label first
    return Split(
        _images(rows[:, layout.label_bytes :]), _checked_labels(labels, layout.num_classes, path)
    )


def _read_pickled(member: memoryview, count: int, layout: Cifar, path: Path) -> Split:
    try:
        for number, (opcode, index, _) in enumerate(pickletools.genops(io.BytesIO(member))):
            # Unpickling clears as much memory as the largest index needs; honest ones count up.
            if opcode.name in ("PUT", "LONG_BINPUT") and (index or 0) > number + 2**16:
                raise pickle.UnpicklingError(f"it keeps object number {index}")
        batch = _InertUnpickler(io.BytesIO(member), encoding="bytes").load()
        _, shape, dtype, column_major, pixels = batch[b"data"].state
        rows = np.frombuffer(pixels, np.uint8).reshape(shape)
        known = dtype.args[0] in ("u1", b"u1") and not column_major
        # Lists of one list many times over would fill the memory as an array.
        if not all(isinstance(label, int | float) for label in batch[layout.label_key]):
            raise TypeError("labels are not numbers")
        labels = np.asarray(batch[layout.label_key])
    except Exception as error:  # unpickling garbage raises anything
        raise DataCorruptError(f"{path} holds a damaged batch: {error!r}") from error
    if not known or rows.shape != (count, _PIXELS) or labels.shape != (count,):
        raise DataCorruptError(
            f"{path} holds a batch of {rows.shape} pixels and {labels.shape} labels; expected "
            f"{count} images of {_PIXELS} bytes"
        )
    return Split(_images(rows), _checked_labels(labels, layout.num_classes, path))


class _Pickled:
    """Stands for an array or a dtype in a pickle: keeps what it is given and does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Loads dicts, lists and arrays; refuses a pickle that names anything else.

    Arrays stay :class:`_Pickled`, since ``numpy.ndarray`` itself makes objects out of raw memory
    when a pickle asks it to.
    """

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        match module_name, global_name:
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return _Pickled
            case "numpy", "ndarray" | "dtype":
                return _Pickled
            case "_codecs", "encode":  # how Python 3 writes bytes in the old pickle protocols
                return lambda text, encoding: text.encode("latin1")
            case _:
                raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def _contents(path: Path, limit: int) -> bytes:
    """A file's unpacked bytes, up to one more than the limit: enough to tell a longer file."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataCorruptError(
            f"{path} is truncated or damaged: {error}; fetch it again"
        ) from error


def _check_size(size: int, wanted: int, path: Path) -> None:
    if size != wanted:
        found = f"over {wanted}" if size > wanted else size
        raise DataCorruptError(f"{path} holds {found} bytes of data, not {wanted}; fetch it again")


def _checked_labels(labels: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    whole = np.issubdtype(labels.dtype, np.integer)
    if not whole or not ((labels >= 0) & (labels < num_classes)).all():
        raise DataCorruptError(f"{path} holds labels outside of 0..{num_classes - 1}")
    return labels.astype(np.int32)


def _images(rows: np.ndarray) -> np.ndarray:
    """Rows of red, green and blue planes as (n, 32, 32, 3)."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _joined(splits: list[Split]) -> Split:
    labels = np.concatenate([split.labels for split in splits])
    images = np.empty((len(labels), 32, 32, 3), np.uint8)  # else laid out as the planes are
    np.concatenate([split.images for split in splits], out=images)
    return Split(images, labels)
