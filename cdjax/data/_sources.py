"""Data sets by name: from archive files, through tensorflow-datasets, or from scikit-learn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from cdjax._checks import check_choice
from cdjax.data._archives import Split, archive_names, folders_of, read_archives, what_is_in
from cdjax.data._tfds import first_line, prepare, read_prepared

DATASETS = ("cifar10", "cifar100", "mnist", "fashion_mnist", "digits")


class DataNotFoundError(FileNotFoundError):
    """A data set is not on the disk and cannot be downloaded; the message names the remedies."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels 0, ..., num_classes - 1, split into training and test samples."""

    name: str
    train_images: UInt8[np.ndarray, "train height width channels"]
    train_labels: Int[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width channels"]
    test_labels: Int[np.ndarray, " test"]
    num_classes: int


def load(name: str, data_dir: str | Path | None = None, *, download: bool = True) -> Dataset:
    """Loads a data set.

    It is taken from the first of these places that has it:

    1. its standard archive files, in ``data_dir/name`` or ``data_dir``, compressed or not; CIFAR's
       archives may be unpacked, and ``data_dir`` may be torchvision's ``root``;
    2. a copy that tensorflow-datasets has prepared in ``data_dir``;
    3. the network, if the server answers within seconds: tensorflow-datasets downloads the data set
       and prepares a copy in ``data_dir``. This takes TensorFlow and some minutes, once.

    Args:
        name: ``cifar10``, ``cifar100``, ``mnist``, ``fashion_mnist`` or ``digits``. The last one is
            scikit-learn's 1,797 handwritten digits, enlarged to CIFAR's 32×32×3; it needs no files.
        data_dir: a folder; by default that of tensorflow-datasets, ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.
        download: whether the network may be used.

    Raises:
        ValueError: if the name is unknown.
        DataNotFoundError: if it cannot be found; the message names the ways to provide it.
        DataCorruptError: if one of its files is missing, truncated or damaged.

    Example: ``dataset = cdjax.data.load("digits")``
    """
    check_choice("data set", name, DATASETS)
    if name == "digits":
        return _digits()
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = Path(data_dir or default).expanduser()
    for folder in folders_of(name, data_dir):
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
    files = (" or " if name.startswith("cifar") else ", ").join(archive_names(name))
    raise DataNotFoundError(
        f"no {name} in {data_dir} ({what_is_in(data_dir)}), and {obstacle}; put {files} into a "
        "folder and give it as data_dir, or install 'cdjax[experiments]' and load it once with the "
        "network up, or take the data set 'digits', which needs no files"
    )


def _dataset(name: str, train: Split, test: Split) -> Dataset:
    return Dataset(name, *train, *test, num_classes=100 if name == "cifar100" else 10)


def _digits() -> Dataset:
    """Scikit-learn's digits; every fifth sample of each class, in their order, is for testing."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    pixels, labels = map(np.asarray, load_digits(return_X_y=True))
    # Bilinear, with the outermost pixels continued. jax.image.resize gives the same images, but
    # takes four times as long, since it is compiled, and starts a backend.
    grey = pixels.reshape(-1, 8, 8) * (255 / 16)
    large = np.asarray(zoom(grey, (1, 4, 4), order=1, mode="nearest", grid_mode=True))
    images = np.repeat(np.rint(large).astype(np.uint8)[..., None], 3, axis=-1)
    labels = labels.astype(np.int32)
    is_test = np.zeros(len(labels), bool)
    is_test[np.argsort(labels, kind="stable")[::5]] = True
    train, test = (Split(images[mask], labels[mask]) for mask in (~is_test, is_test))
    return _dataset("digits", train, test)
