"""The data sets' standard archive files, read with NumPy only. Nothing in them is trusted.

IDX files of the MNIST family: http://yann.lecun.com/exdb/mnist. CIFAR-10 and CIFAR-100 in their
Python and binary versions: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import io
import math
import pickletools
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int, UInt8

from cdjax._contents import UnreadableError, kind_of, read


class DataCorruptError(ValueError):
    """A data file is truncated or is not what its name says; the message names the file."""


class Split(NamedTuple):
    """The training or the test samples of a data set: uint8 images and int32 labels."""

    images: UInt8[np.ndarray, "samples height width channels"]
    labels: Int[np.ndarray, " samples"]


class Cifar(NamedTuple):
    """The layout of one CIFAR data set's archives, of which there are two kinds."""

    folder: dict[str, str]  # inside the archive of each kind
    train: tuple[str, ...]  # the names of the files
    test: tuple[str, ...]
    images_per_file: tuple[int, int]  # of train and of test
    label_bytes: int  # in front of each image in the binary kind; the last one is the label
    label_key: bytes  # in the python kind
    num_classes: int


CIFAR = {
    "cifar10": Cifar(
        folder={"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin"},
        train=tuple(f"data_batch_{number}" for number in range(1, 6)),
        test=("test_batch",),
        images_per_file=(10_000, 10_000),
        label_bytes=1,
        label_key=b"labels",
        num_classes=10,
    ),
    "cifar100": Cifar(
        folder={"python": "cifar-100-python", "binary": "cifar-100-binary"},
        train=("train",),
        test=("test",),
        images_per_file=(50_000, 10_000),
        label_bytes=2,
        label_key=b"fine_labels",
        num_classes=100,
    ),
}
MNIST_COUNTS = {"train": 60_000, "t10k": 10_000}
# The files of both data sets have the same names and sizes, and so have those of others, as KMNIST.
# Their first labels tell them apart.
MNIST_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion_mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}
# The folders into which torchvision puts these files.
_OF_TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
_PIXELS = 32 * 32 * 3
# The red, green and blue planes of a file's images, and their labels.
_Planes: TypeAlias = tuple[np.ndarray, np.ndarray]
# The content of a file of a CIFAR data set, by its name; None if there is no such file.
_Find: TypeAlias = Callable[[str], memoryview | None]


def archive_names(name: str) -> list[str]:
    """The names of the files in which a data set is published."""
    if name in CIFAR:
        return [f"cifar-{CIFAR[name].num_classes}-{kind}.tar.gz" for kind in ("python", "binary")]
    kinds = "images-idx3-ubyte", "labels-idx1-ubyte"
    return [f"{split}-{kind}.gz" for split in MNIST_COUNTS for kind in kinds]


def folders_of(name: str, data_dir: Path) -> list[Path]:
    """Where a data set's files may lie.

    First comes the folder that is named after the data set: MNIST and Fashion-MNIST use the same
    file names.
    """
    if data_dir.is_file() and data_dir.name.lower() in archive_names(name):
        return [data_dir.parent]
    own = _OF_TORCHVISION.get(name)
    raw = [data_dir / own / "raw", data_dir / "raw"] if own else []
    return [data_dir / name, data_dir, *raw]


def what_is_in(folder: Path) -> str:
    """What a folder holds, for an error message."""
    if folder.is_file():
        return "a file; give its folder"
    if not folder.is_dir():
        return "there is no such folder"
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"it holds {', '.join(map(repr, names[:6]))}{more}" if names else "it is empty"


def read_archives(name: str, folder: Path) -> tuple[Split, Split] | None:
    """The training and the test split from the files in a folder; None if it has none of them.

    Raises:
        DataCorruptError: if a file is truncated or damaged, or is missing while others are there.
    """
    return _read_cifar(name, folder) if name in CIFAR else _read_mnist(name, folder)


def _read_mnist(name: str, folder: Path) -> tuple[Split, Split] | None:
    found = {file: _find_idx(folder, file.removesuffix(".gz")) for file in archive_names(name)}
    paths = [path for path in found.values() if path]
    if not paths:
        return None
    if missing := [file for file, path in found.items() if not path]:
        raise DataCorruptError(f"{folder} lacks {', '.join(missing)}; put it next to the others")
    train, test = map(_read_idx_pair, paths[::2], paths[1::2], MNIST_COUNTS.values())
    first_labels = tuple(train.labels[:10].tolist())
    for other, labels in MNIST_FIRST_LABELS.items():
        if other != name and first_labels == labels:
            raise DataCorruptError(
                f"{folder} holds {other}, not {name}; keep each in a folder of that name"
            )
    if first_labels != (expected := MNIST_FIRST_LABELS.get(name, first_labels)):
        raise DataCorruptError(
            f"{folder} holds another data set than {name} under its file names: the first labels "
            f"are {_words(first_labels)}, not {_words(expected)}; read it with a reader of its own"
        )
    return train, test


def _words(numbers: tuple[int, ...]) -> str:
    return " ".join(map(str, numbers))


def _find_idx(folder: Path, file: str) -> Path | None:
    spellings = [file, file.replace("-idx", ".idx")]
    names = [f"{spelling}{ending}" for spelling in spellings for ending in (".gz", "")]
    return _find_file(folder, names)


def _find_file(folder: Path, names: list[str]) -> Path | None:
    """The first of these files that a folder has, in upper or lower case."""
    if not folder.is_dir():
        return None
    found = {path.name.lower(): path for path in folder.iterdir() if path.is_file()}
    return next((found[name] for name in names if name in found), None)


def _read_idx_pair(images: Path, labels: Path, count: int) -> Split:
    pixels = _read_idx(images, (count, 28, 28))[..., None]
    return Split(pixels, _checked_labels(_read_idx(labels, (count,)), 10, labels))


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    magic = bytes([0, 0, 8, len(shape)])  # 8 is the format's code for unsigned bytes
    start = 4 + 4 * len(shape)
    content = _contents(path, start + math.prod(shape))
    if content[:4] != magic:
        raise DataCorruptError(
            f"{path} is not such a file: it begins with {content[:4].hex()}, not {magic.hex()}"
        )
    found = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4))
    if found != shape and len(content) >= start:
        raise DataCorruptError(f"{path} declares the shape {found}, not {shape}")
    _check_size(len(content), start + math.prod(shape), path)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_cifar(name: str, folder: Path) -> tuple[Split, Split] | None:
    layout, readers = CIFAR[name], {"python": _read_pickled, "binary": _read_binary}
    for archive, (kind, top) in zip(archive_names(name), layout.folder.items(), strict=True):
        # Browsers unpack files as they come, and may leave them their name or not.
        if path := _find_file(folder, [archive, archive.removesuffix(".gz")]):
            find = _in_archive(layout, top, path)
            return _read_cifar_files(layout, find, f"{top}/", readers[kind], path)
    for kind, top in layout.folder.items():  # unpacked archives
        path = folder if folder.name == top else folder / top
        if path.is_dir():
            find = _in_folder(layout, path)
            return _read_cifar_files(layout, find, "", readers[kind], path)
    return None


def _in_folder(layout: Cifar, folder: Path) -> _Find:
    limit = max(layout.images_per_file) * (2 * _PIXELS + 256) + 2**20

    def find(name: str) -> memoryview | None:
        path = _find_file(folder, [name, f"{name}.bin"])
        return memoryview(_contents(path, limit)) if path else None

    return find


def _in_archive(layout: Cifar, folder: str, path: Path) -> _Find:
    train_count, test_count = layout.images_per_file
    num_images = train_count * len(layout.train) + test_count * len(layout.test)
    # The room for file names and headers, and for pickles that write a byte above 127 as two. What
    # unpacks to more is not CIFAR and might fill the memory.
    limit = num_images * (2 * _PIXELS + 256) + 2**20
    content = memoryview(_contents(path, limit))
    if len(content) > limit:
        raise DataCorruptError(f"{path} unpacks to more than {limit} bytes; fetch it again")
    members = _tar_members(content, path)
    return lambda name: members.get(f"{folder}/{name}", members.get(f"{folder}/{name}.bin"))


def _read_cifar_files(
    layout: Cifar, find: _Find, prefix: str, reader: Callable[..., _Planes], path: Path
) -> tuple[Split, Split]:
    train_count, test_count = layout.images_per_file

    def read_all(names: tuple[str, ...], count: int) -> Split:
        images = np.empty((len(names), count, 32, 32, 3), np.uint8)
        labels = np.empty((len(names), count), np.int32)
        for i, name in enumerate(names):
            member = find(name)
            if member is None:
                raise DataCorruptError(f"{path} lacks {prefix}{name}; fetch it again")
            planes, numbers = reader(member, count, layout, path)
            images[i] = planes.reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
            labels[i] = _checked_labels(numbers, layout.num_classes, path)
        return Split(images.reshape(-1, 32, 32, 3), labels.ravel())

    return read_all(layout.train, train_count), read_all(layout.test, test_count)


def _tar_members(content: memoryview, path: Path) -> dict[str, memoryview]:
    """The archive's regular files, as views of its bytes: nothing is unpacked to the disk."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            return {
                entry.name.removeprefix("./"): content[entry.offset_data :][: entry.size]
                for entry in tar
                if entry.isfile()
            }
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise DataCorruptError(f"{path} is not a readable tar archive: {error}") from error


def _read_binary(member: memoryview, count: int, layout: Cifar, path: Path) -> _Planes:
    _check_size(len(member), count * (layout.label_bytes + _PIXELS), path)
    rows = np.frombuffer(member, np.uint8).reshape(count, -1)
    # CIFAR-100 has the coarse label first.
    return rows[:, layout.label_bytes :], rows[:, layout.label_bytes - 1]


def _read_pickled(member: memoryview, count: int, layout: Cifar, path: Path) -> _Planes:
    """Finds the pixels and the labels in a pickle without unpickling it.

    ``cifar-10-python.tar.gz`` is the archive that most people have, so it must be read. But
    unpickling runs what a file asks for, and an unpickler restricted to arrays still has to be kept
    from forged arrays and from filling the memory. Listing the opcodes runs nothing: the pixels are
    the one string of their length, and the labels are the integers behind their key.
    """
    strings, labels, pixels, key, is_column_major = set(), [], b"", b"", False
    try:
        for opcode, value, _ in pickletools.genops(io.BytesIO(member)):
            # "latin1" is how Python 3 marks bytes in old protocols, behind each of them.
            if isinstance(value, str | bytes) and value != "latin1" and opcode.name != "GLOBAL":
                key = value.encode("latin1") if isinstance(value, str) else value
                strings.add(key[:16])
                if len(key) == count * _PIXELS and not is_column_major:
                    pixels = key
            elif opcode.name.startswith("BININT") and key == layout.label_key:
                labels.append(value)
            elif opcode.name in ("NEWTRUE", "NEWFALSE"):  # an array's order is told before its data
                is_column_major = opcode.name == "NEWTRUE"
    except Exception as error:  # garbage raises anything
        raise DataCorruptError(f"{path} holds a damaged batch: {error!r}") from error
    if not pixels or b"u1" not in strings or len(labels) != count:
        raise DataCorruptError(
            f"{path} holds a batch of {len(labels)} labels and {len(pixels)} bytes of pixels; "
            f"expected {count} images of {_PIXELS} bytes"
        )
    return np.frombuffer(pixels, np.uint8), np.array(labels)


def _contents(path: Path, limit: int) -> bytes:
    """A file's unpacked bytes, at most one more than the limit, which shows that it is longer."""
    try:
        content = read(path, limit)
    except UnreadableError as error:
        message = f"{path} is truncated or damaged: {error}; fetch it again"
        raise DataCorruptError(message) from error
    if kind := kind_of(content):
        raise DataCorruptError(
            f"{path} is truncated or damaged: it is {kind}; put the file itself in its place"
        )
    return content


def _check_size(size: int, wanted: int, path: Path) -> None:
    if size != wanted:
        found = f"over {wanted}" if size > wanted else size
        raise DataCorruptError(f"{path} holds {found} bytes of data, not {wanted}; fetch it again")


def _checked_labels(labels: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    if not ((labels >= 0) & (labels < num_classes)).all():
        raise DataCorruptError(f"{path} holds labels outside 0..{num_classes - 1}")
    return labels.astype(np.int32)
