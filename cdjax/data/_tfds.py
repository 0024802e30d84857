"""Data sets through tensorflow-datasets: prepared once with TensorFlow, then read without it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cdjax.data._archives import DataCorruptError, Split
from cdjax.data._download import first_line


def read_prepared(name: str, data_dir: Path) -> tuple[Split, Split] | None:
    """The training and the test split of a copy that tensorflow-datasets has prepared.

    Needs neither TensorFlow nor the network; None if there is no such copy in its ``data_dir``.

    Raises:
        ImportError: if there may be a copy, but the packages that read it are not installed.
        DataCorruptError: if the copy cannot be read.
    """
    if not (data_dir / name).is_dir():
        return None
    tfds = _import_tfds()
    folder = data_dir / name
    try:
        folder = Path(tfds.builder(name, data_dir=data_dir).data_dir)
        if not (folder / "dataset_info.json").is_file():
            return None
        names = ["train", "test"]
        sources = tfds.data_source(name, split=names, data_dir=data_dir, download=False)
        train, test = map(_split, sources)
    except ImportError:
        raise
    except NotImplementedError as error:
        raise DataCorruptError(
            f"{folder} is in a format that only TensorFlow can read; prepare it as array_record, "
            "or take another folder"
        ) from error
    except Exception as error:  # damaged metadata and records raise anything
        raise DataCorruptError(
            f"{folder} cannot be read ({type(error).__name__}: {first_line(error)}); delete it to "
            "have it prepared again"
        ) from error
    return train, test


def prepare_copy(name: str, data_dir: Path) -> str:
    """Has tensorflow-datasets download and prepare a data set. Only this needs TensorFlow.

    Returns what prevented it; empty if it succeeded.

    Raises:
        ImportError: if TensorFlow or tensorflow-datasets is not installed.
    """
    import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

    tfds = _import_tfds()
    try:
        tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # networks and disks fail in many ways
        return f"preparing it failed ({type(error).__name__}: {first_line(error)})"
    return ""


def _import_tfds() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own dependencies
        import tensorflow_datasets as tfds
    return tfds


def _split(source: Any) -> Split:
    examples = [source[index] for index in range(len(source))]
    images = np.stack([example["image"] for example in examples])
    return Split(images, np.array([example["label"] for example in examples], np.int32))
