"""Data sets by name: from archive files, from tensorflow-datasets, or embedded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from cdjax.data._archives import Split, archive_names, read_archives
from cdjax.data._tfds import first_line, prepare, read_prepared

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

    Looks, in this order, for its standard archive files in ``data_dir/name`` or ``data_dir``; for a
    copy that tensorflow-datasets has prepared there; and, if its server answers within seconds, has
    tensorflow-datasets prepare it there, which takes TensorFlow and some minutes, once.

    Args:
        name: ``cifar10``, ``cifar100``, ``mnist``, ``fashion_mnist``, or ``digits``: scikit-learn's
            1,797 handwritten digits, enlarged to CIFAR's 32×32×3, which need no files.
        data_dir: a folder; by default tensorflow-datasets' own, ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.
        download: whether the network may be asked.

    Returns:
        The data set.

    Raises:
        ValueError: if the name is unknown.
        DataNotFoundError: if the data set is not to be had; the message names the ways to provide
            it.
        DataCorruptError: if a file of it is missing, truncated or damaged.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    if name == "digits":
        return _digits()
    data_dir = Path(
        data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    ).expanduser()
    # A folder of the data set's own name first: MNIST's and Fashion-MNIST's files are namesakes.
    for folder in (data_dir / name, data_dir):
        if splits := read_archives(name, folder):
            return _dataset(name, *splits)
    try:
        splits = read_prepared(name, data_dir)
        obstacle = "" if splits else prepare(name, data_dir) if download else "downloads are off"
        splits = splits or (None if obstacle else read_prepared(name, data_dir))
    except ImportError as error:
        splits, obstacle = None, f"a prepared copy cannot be read ({first_line(error)})"
    if splits:
        return _dataset(name, *splits)
    raise DataNotFoundError(
        f"no {name} in {data_dir}, and {obstacle}; put {_archive_files(name)} into a folder and "
        "give it as data_dir (--data-dir), or install 'cdjax[experiments]' and run once with the "
        "network up, or take the embedded digits (--dataset digits)"
    )


def _archive_files(name: str) -> str:
    return (" or " if name.startswith("cifar") else ", ").join(archive_names(name))


def _dataset(name: str, train: Split, test: Split) -> Dataset:
    num_classes = 100 if name == "cifar100" else 10
    return Dataset(name, train.images, train.labels, test.images, test.labels, num_classes)


def _digits() -> Dataset:
    """Scikit-learn's digits; every fifth of each class, in their order, for testing."""
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    images, labels = _enlarged(pixels.reshape(-1, 8, 8) * (255 / 16)), labels.astype(np.int32)
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    return _dataset(
        "digits", Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])
    )


def _enlarged(images: np.ndarray, side: int = 32) -> np.ndarray:
    """Bilinear to side × side, three equal channels, uint8."""
    small = images.shape[1]
    centers = np.clip((np.arange(side) + 0.5) * small / side - 0.5, 0, small - 1)
    weights = np.maximum(0, 1 - np.abs(centers[:, None] - np.arange(small)))
    large = np.einsum("yi,nij,xj->nyx", weights, images, weights)
    return np.repeat(np.rint(large).astype(np.uint8)[..., None], 3, axis=-1)
