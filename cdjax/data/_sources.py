"""Data sets by name: from archive files, from tensorflow-datasets, or embedded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdjax.data import _tfds
from cdjax.data._archives import archive_names, read_archives

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

    from cdjax.data._archives import Arrays

DATASETS = ("cifar10", "cifar100", "mnist", "fashion_mnist", "digits")


class DataNotFoundError(FileNotFoundError):
    """A data set that is neither on the disk nor to be had; the message names the remedies."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, split for training and test.

    Attributes:
        name: one of ``DATASETS``.
        train_images: uint8, shape (n, H, W, C).
        train_labels: int32, shape (n,), from 0.
        test_images: uint8, shape (m, H, W, C).
        test_labels: int32, shape (m,).
        num_classes: how many labels there are.
    """

    name: str
    train_images: UInt8[np.ndarray, "train height width channels"]
    train_labels: Int[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width channels"]
    test_labels: Int[np.ndarray, " test"]
    num_classes: int


def load(name: str, data_dir: str | Path | None = None, *, download: bool = True) -> Dataset:
    """Loads a data set.

    Looks, in this order, for its standard archive files in ``data_dir`` or ``data_dir/name``; for a
    copy that tensorflow-datasets has prepared there; and, if its server answers within seconds, has
    tensorflow-datasets prepare it, which takes TensorFlow and some minutes, once.

    Args:
        name: ``cifar10``, ``cifar100``, ``mnist``, ``fashion_mnist``, or ``digits``: scikit-learn's
            1,797 handwritten digits, enlarged to CIFAR's 32×32×3, which need no files.
        data_dir: a folder; by default tensorflow-datasets' own.
        download: whether the network may be asked.

    Returns:
        The data set.

    Raises:
        ValueError: if the name is unknown.
        DataNotFoundError: if the data set is not to be had; the message names the ways to provide
            it.
        DataCorruptError: if an archive file is damaged.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    if name == "digits":
        return _digits()
    data_dir = None if data_dir is None else Path(data_dir).expanduser()
    for folder in [] if data_dir is None else [data_dir, data_dir / name]:
        if arrays := read_archives(name, folder):
            return _dataset(name, arrays)
    if arrays := _tfds.read_prepared(name, data_dir):
        return _dataset(name, arrays)
    obstacle = _prepare(name, data_dir) if download else "downloads are off"
    if not obstacle and (arrays := _tfds.read_prepared(name, data_dir)):
        return _dataset(name, arrays)
    where = "in tensorflow-datasets' default folder" if data_dir is None else f"in {data_dir}"
    raise DataNotFoundError(
        f"no {name} {where}, and {obstacle}; put {' or '.join(_file_sets(name))} into a folder "
        "and give it as the data directory (--data-dir), run once with the network up and "
        "cdjax[experiments] installed, or take the embedded data set, digits"
    )


def _prepare(name: str, data_dir: Path | None) -> str:
    """Has tensorflow-datasets prepare the data set; returns what stood in the way, if anything."""
    if not _tfds.reachable(name):
        return "its server cannot be reached"
    try:
        _tfds.prepare(name, data_dir)
    except ModuleNotFoundError as error:
        return f"to prepare it takes {error.name or error}, which is not installed"
    except Exception as error:  # noqa: BLE001  downloads and disks fail in many ways
        return f"tensorflow-datasets could not prepare it ({type(error).__name__}: {error})"
    return ""


def _file_sets(name: str) -> list[str]:
    names = archive_names(name)
    return names if name.startswith("cifar") else [", ".join(names)]


def _dataset(name: str, arrays: tuple[Arrays, Arrays]) -> Dataset:
    (train_images, train_labels), (test_images, test_labels) = arrays
    num_classes = 100 if name == "cifar100" else 10
    return Dataset(name, train_images, train_labels, test_images, test_labels, num_classes)


def _digits() -> Dataset:
    """Scikit-learn's digits, a fifth of every class for testing."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    images = _enlarged(pixels.reshape(-1, 8, 8) * (255 / 16))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=0
    )
    labels = labels.astype(np.int32)
    return Dataset("digits", images[train], labels[train], images[test], labels[test], 10)


def _enlarged(images: np.ndarray, side: int = 32) -> np.ndarray:
    """Bilinear to side × side, three equal channels, uint8."""
    small = images.shape[1]
    centers = np.clip((np.arange(side) + 0.5) * small / side - 0.5, 0, small - 1)
    weights = np.maximum(0, 1 - np.abs(centers[:, None] - np.arange(small)))
    large = np.einsum("yi,nij,xj->nyx", weights, images, weights)
    return np.repeat(np.rint(large).astype(np.uint8)[..., None], 3, axis=-1)
