"""The data sets' standard archive files, read with NumPy alone and trusted in nothing.

IDX files of the MNIST family: http://yann.lecun.com/exdb/mnist. CIFAR-10 and CIFAR-100 in their
Python and binary versions: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

Arrays: TypeAlias = tuple["UInt8[np.ndarray, 'n h w c']", "Int[np.ndarray, ' n']"]


class DataCorruptError(ValueError):
    """A data file that is truncated or not what its name says; the message names it."""


class Cifar(NamedTuple):
    """The layout of one CIFAR archive."""

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


def read_archives(name: str, folder: Path) -> tuple[Arrays, Arrays] | None:
    """Reads a data set from its archive files in a folder.

    Args:
        name: cifar10, cifar100, mnist or fashion_mnist.
        folder: where the files lie.

    Returns:
        Training and test images and labels; None if the folder has none of the files.

    Raises:
        DataCorruptError: if a file is missing beside others of the set, truncated or damaged.
    """
    return _read_cifar(name, folder) if name in CIFAR else _read_mnist(folder)


def _read_mnist(folder: Path) -> tuple[Arrays, Arrays] | None:
    names = [name.removesuffix(".gz") for name in archive_names("mnist")]
    found = {name: _find_idx(folder, name) for name in names}
    if not any(found.values()):
        return None
    missing = [f"{name}.gz" for name, path in found.items() if path is None]
    if missing:
        raise DataCorruptError(f"{folder} lacks {', '.join(missing)}; put it beside the others")
    train_images, train_labels, test_images, test_labels = (
        _read_idx(path, MNIST_COUNTS[name.partition("-")[0]])
        for name, path in found.items()
        if path
    )
    return (train_images[..., None], train_labels), (test_images[..., None], test_labels)


def _find_idx(folder: Path, name: str) -> Path | None:
    spellings = [name, name.replace("-idx", ".idx")]
    paths = [folder / f"{spelling}{ending}" for spelling in spellings for ending in (".gz", "")]
    return next((path for path in paths if path.is_file()), None)


def _read_idx(path: Path, count: int) -> np.ndarray:
    shape = (count, 28, 28) if "images" in path.name else (count,)
    header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    size = len(header) + int(np.prod(shape))
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        content = _read_exactly(file, size, path)
    if content[: len(header)] != header:
        raise DataCorruptError(f"{path} is no IDX file of {count} entries: its header is "
                               f"{content[:len(header)].hex()}, not {header.hex()}")  # fmt: skip
    array = np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)
    return array if len(shape) == 3 else _checked_labels(array, 10, path)


def _read_cifar(name: str, folder: Path) -> tuple[Arrays, Arrays] | None:
    layout = CIFAR[name]
    for kind, archive in zip(("python", "binary"), archive_names(name), strict=True):
        path = folder / archive
        if path.is_file():
            return _read_cifar_archive(layout, kind, path)
    return None


def _read_cifar_archive(layout: Cifar, kind: str, path: Path) -> tuple[Arrays, Arrays]:
    read = _read_pickled if kind == "python" else _read_binary
    ending = "" if kind == "python" else ".bin"
    counts = dict.fromkeys(layout.train, layout.images_a_file[0])
    counts |= dict.fromkeys(layout.test, layout.images_a_file[1])
    wanted = {f"{layout.folder[kind]}/{member}{ending}": member for member in counts}
    files: dict[str, Arrays] = {}
    try:
        # Streamed and by name alone: nothing is unpacked to the disk, wherever members point.
        with tarfile.open(path, "r|gz") as tar:
            for entry in tar:
                member = wanted.get(entry.name.removeprefix("./"))
                stream = tar.extractfile(entry) if member and entry.isfile() else None
                if member and stream:
                    files[member] = read(stream, counts[member], layout, path)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataCorruptError(f"{path} is truncated or damaged: {error}") from error
    missing = [member for member in counts if member not in files]
    if missing:
        raise DataCorruptError(
            f"{path} lacks {', '.join(missing)}; it is truncated or another file"
        )
    train, test = ([files[m] for m in members] for members in (layout.train, layout.test))
    return _joined(train), _joined(test)


def _read_binary(stream: IO[bytes], count: int, layout: Cifar, path: Path) -> Arrays:
    content = _read_exactly(stream, count * (layout.label_bytes + _PIXELS), path)
    rows = np.frombuffer(content, np.uint8).reshape(count, -1)
    labels = rows[:, layout.label_bytes - 1]  # CIFAR-100 has the coarse label first
    return _images(rows[:, layout.label_bytes :]), _checked_labels(labels, layout.num_classes, path)


def _read_pickled(stream: IO[bytes], count: int, layout: Cifar, path: Path) -> Arrays:
    limit = count * (_PIXELS + 256)  # file names and labels stand beside the pixels
    content = stream.read(limit + 1)
    if len(content) > limit:
        raise DataCorruptError(f"{path} holds a member larger than {limit} bytes")
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), np.asarray(batch[layout.label_key])
    except Exception as error:  # noqa: BLE001  unpickling garbage raises anything
        raise DataCorruptError(f"{path} holds a damaged batch: {error!r}") from error
    if pixels.shape != (count, _PIXELS) or pixels.dtype != np.uint8 or labels.shape != (count,):
        raise DataCorruptError(f"{path} holds {pixels.dtype} images of shape {pixels.shape} and "
                               f"{labels.shape} labels, not {count} images")  # fmt: skip
    return _images(pixels), _checked_labels(labels, layout.num_classes, path)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads dicts, lists and NumPy arrays; a pickle that names anything else is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        module = module_name.replace("numpy._core", "numpy.core")
        match module, global_name:
            case "numpy.core.multiarray", "_reconstruct":
                return np.empty(0).__reduce__()[0]
            case "numpy", "ndarray" | "dtype":
                return getattr(np, global_name)
            case "_codecs", "encode":
                return lambda text, encoding: text.encode(encoding)
            case _:
                raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def _read_exactly(stream: gzip.GzipFile | IO[bytes], size: int, path: Path) -> bytes:
    try:
        content = stream.read(size + 1)  # one more byte tells a longer file from a right one
    except (EOFError, OSError, zlib.error) as error:
        raise DataCorruptError(f"{path} is truncated or damaged: {error}") from error
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else str(len(content))
        raise DataCorruptError(f"{path} holds {found} bytes of data, not {size}; fetch it again")
    return content


def _images(rows: np.ndarray) -> np.ndarray:
    """Rows of red, green and blue planes to (n, 32, 32, 3)."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _checked_labels(labels: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    if (
        not np.issubdtype(labels.dtype, np.integer)
        or not ((labels >= 0) & (labels < num_classes)).all()
    ):
        raise DataCorruptError(f"{path} holds labels outside of 0..{num_classes - 1}")
    return labels.astype(np.int32)


def _joined(files: list[Arrays]) -> Arrays:
    images, labels = zip(*files, strict=True)
    return np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels)
