"""Copies of data sets that tensorflow-datasets has prepared, read without it and TensorFlow.

A copy is a folder of array_record files. Each record is a ``tf.train.Example``, a small message of
Protocol Buffers, that holds an image as PNG and its label.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cdjax.data._archives import DataCorruptError, Split
from cdjax.data._download import first_line


def read_prepared(name: str, data_dir: Path) -> tuple[Split, Split] | None:
    """The training and the test split of a copy that tensorflow-datasets has prepared.

    None if there is no such copy in its ``data_dir``; of several, the newest version is read.

    Raises:
        ImportError: if there is a copy, but the packages that read it are not installed.
        DataCorruptError: if the copy cannot be read.
    """
    infos = (data_dir / name).glob("*.*.*/dataset_info.json")
    folder = max((path.parent for path in infos), key=_version, default=None)
    if folder is None:
        return None
    try:
        info = json.loads((folder / "dataset_info.json").read_text())
        kind = info.get("fileFormat", "tfrecord")
        if kind == "array_record":
            lengths = {split["name"]: split["shardLengths"] for split in info["splits"]}
            return _read(folder, name, lengths, "train"), _read(folder, name, lengths, "test")
    except ImportError:
        raise
    except Exception as error:  # damaged metadata and records raise anything
        raise DataCorruptError(
            f"{folder} cannot be read ({type(error).__name__}: {first_line(error)}); delete it and "
            "load the data set again"
        ) from error
    raise DataCorruptError(
        f"{folder} is in the format {kind}, which only TensorFlow can read; prepare it as "
        "array_record, or take another folder"
    )


def _version(folder: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", folder.name)]


def _read(folder: Path, name: str, lengths: dict[str, list[str]], split: str) -> Split:
    # A compiled module, whose names pyright does not see.
    from array_record.python import array_record_module  # pyright: ignore
    from PIL import Image

    images, labels = [], []
    for number, length in enumerate(lengths[split]):
        shard = f"{name}-{split}.array_record-{number:05d}-of-{len(lengths[split]):05d}"
        if not (folder / shard).is_file():  # array_record would say so in several lines
            raise FileNotFoundError(f"{shard} is missing")
        reader = array_record_module.ArrayRecordReader(str(folder / shard))
        records = reader.read_all()
        reader.close()
        if len(records) != int(length):
            raise ValueError(f"{shard} has {len(records)} records, not {length}")
        for record in records:
            example = _features(record)
            with Image.open(io.BytesIO(example["image"])) as image:
                images.append(np.asarray(image))
            labels.append(example["label"])
    pixels = np.stack(images)
    return Split(pixels.reshape(*pixels.shape[:3], -1), np.array(labels, np.int32))


def _features(record: bytes) -> dict[str, Any]:
    """The features of a ``tf.train.Example``: bytes, or one whole number, by their names.

    As in its declaration: ``Example {1: Features {1: map of string to Feature}}``, ``Feature {1:
    BytesList {1: bytes} | 3: Int64List {1: packed varints}}``; an entry of a map has the fields 1
    and 2.
    """
    found = {}
    for _, features in _fields(record):
        for _, entry in _fields(features):
            name, feature = (value for _, value in _fields(entry))
            ((kind, values),) = _fields(feature)
            (value,) = (value for _, value in _fields(values))
            if kind == 3 and isinstance(value, bytes):  # packed
                value, _ = _varint(value, 0)
            found[name.decode()] = value
    return found


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message of Protocol Buffers: numbers, or bytes, by their tags."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:  # bytes, whose length comes first
            value, at = message[at : at + value], at + value
        elif key & 7:
            raise ValueError(f"a record has a field of the wire type {key & 7}")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


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
