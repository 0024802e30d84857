"""Data sets by name: from archive files, through tensorflow-datasets, or from scikit-learn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from cdjax._checks import check_choice
from cdjax.data._archives import Split, archive_names, folders_of, read_archives, what_is_in
from cdjax.data._download import PUBLISHED, addresses, answering, first_line
from cdjax.data._download import download as fetch
from cdjax.data._tfds import prepare_copy, read_prepared

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
    3. the network, if a server answers within seconds: the archive files are downloaded to
       ``data_dir/name``, and their checksums compared with those of the published ones.

    Args:
        name: ``cifar10``, ``cifar100``, ``mnist``, ``fashion_mnist`` or ``digits``. The last one is
            scikit-learn's 1,797 handwritten digits, enlarged to CIFAR's 32×32×3; it needs no files.
        data_dir: a folder. By default files are looked for in that of tensorflow-datasets
            (``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``) and in ``~/.cache/cdjax/data``, to
            which they are downloaded; ``XDG_CACHE_HOME`` takes the place of ``~/.cache``.
        download: whether the network may be used. ``CDJAX_DATA_MIRROR`` in the environment is the
            address of a folder like ``data_dir`` that is asked before the publishers.

    Raises:
        ValueError: if the name is unknown.
        DataNotFoundError: if it cannot be found; the message names the ways to provide it.
        DataCorruptError: if one of its files is missing, truncated or damaged.

    Example: ``dataset = cdjax.data.load("digits")``
    """
    check_choice("data set", name, DATASETS)
    if name == "digits":
        return _digits()
    places = [Path(data_dir)] if data_dir else _default_places()
    places = [place.expanduser() for place in places]
    if splits := _read(name, places):
        return _dataset(name, *splits)
    obstacles = []
    try:
        splits = _read_prepared(name, places)
    except ImportError as error:
        obstacles.append(f"a prepared copy cannot be read ({first_line(error)})")
    if not splits:
        obstacles.append(_fetch(name, places[-1]) if download else "downloads are off")
        splits = None if obstacles[-1] else _read(name, places)
    if splits:
        return _dataset(name, *splits)
    looked = " or ".join(f"{place} ({what_is_in(place)})" for place in places)
    files = (" or " if name.startswith("cifar") else ", ").join(archive_names(name))
    raise DataNotFoundError(
        f"no {name} in {looked}, and {' and '.join(obstacles)}; put {files} into a "
        "folder and give it as data_dir, or install 'cdjax[experiments]' and load it once with the "
        "network up, or take the data set 'digits', which needs no files"
    )


def prepare(name: str, data_dir: str | Path | None = None) -> None:
    """Has tensorflow-datasets download a data set and prepare a copy, which :func:`load` reads.

    This is for programs that share such copies; :func:`load` needs none. It takes TensorFlow (``pip
    install 'cdjax[prepare]'``) and some minutes. Reading the copy takes neither.

    Args:
        name: as for :func:`load`, but for ``digits``.
        data_dir: a folder; by default that of tensorflow-datasets, ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.

    Raises:
        ValueError: if the name is unknown.
        ImportError: if TensorFlow is not installed.
        DataNotFoundError: if it cannot be downloaded or prepared.
    """
    check_choice("data set", name, PUBLISHED)
    place = Path(data_dir).expanduser() if data_dir else _default_places()[0].expanduser()
    try:
        obstacle = prepare_copy(name, place) if answering(name) else _unreachable(name)
    except ImportError as error:
        needs = f"preparing {name} needs {error.name}; pip install 'cdjax[prepare]'"
        raise ImportError(needs) from error
    if obstacle:
        raise DataNotFoundError(
            f"no copy of {name} in {place}: {obstacle}; load it instead, which needs its archive "
            "files only"
        )


def _default_places() -> list[Path]:
    """The folder of tensorflow-datasets, and the one to which cdjax downloads."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    prepared = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return [Path(prepared), caches / "cdjax" / "data"]


def _read(name: str, places: list[Path]) -> tuple[Split, Split] | None:
    folders = (folder for place in places for folder in folders_of(name, place))
    return next(filter(None, (read_archives(name, folder) for folder in folders)), None)


def _read_prepared(name: str, places: list[Path]) -> tuple[Split, Split] | None:
    return next(filter(None, (read_prepared(name, place) for place in places)), None)


def _fetch(name: str, data_dir: Path) -> str:
    """Brings a data set from the network; what prevented it, or an empty string."""
    folders = answering(name)
    return fetch(name, data_dir, folders) if folders else _unreachable(name)


def _unreachable(name: str) -> str:
    return f"{' and '.join(addresses(name))} cannot be reached"


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
