"""Data sets through tensorflow-datasets: prepared once with TensorFlow, read ever after without."""

from __future__ import annotations

import threading
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from cdjax.data._archives import Arrays

# Where tensorflow-datasets fetches each data set from.
_UPSTREAM = {
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    "train-images-idx3-ubyte.gz",
}
_REQUEST_SECONDS = 5.0
_LIMIT_SECONDS = 8.0


def read_prepared(name: str, data_dir: Path | None) -> tuple[Arrays, Arrays] | None:
    """Reads a copy that tensorflow-datasets has prepared, without TensorFlow and network.

    Args:
        name: the data set's name there.
        data_dir: its folder; by default its own default, ``TFDS_DATA_DIR`` or
            ``~/tensorflow_datasets``.

    Returns:
        Training and test images and labels; None if there is no such copy, or no
        tensorflow-datasets.
    """
    tfds = _import_tfds()
    if tfds is None:
        return None
    try:
        # An unprepared folder raises from here, in one of several types and with a misleading text.
        splits = [
            tfds.data_source(name, split=split, data_dir=data_dir, download=False)
            for split in ("train", "test")
        ]
    except Exception:  # noqa: BLE001
        return None
    train, test = map(_arrays, splits)
    return train, test


def prepare(name: str, data_dir: Path | None) -> None:
    """Downloads and prepares a data set; the one place that needs TensorFlow.

    Args:
        name: the data set's name in tensorflow-datasets.
        data_dir: where to put it; tensorflow-datasets' own default if None.

    Raises:
        ModuleNotFoundError: if TensorFlow or tensorflow-datasets is not installed.
    """
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's
    tfds = _import_tfds()
    if tfds is None:
        raise ModuleNotFoundError("No module named 'tensorflow_datasets'")
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()


def reachable(name: str) -> bool:
    """Whether the data set's upstream server answers, found out within seconds."""
    answers: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(_UPSTREAM[name], method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS):
                answers.append(True)
        except (OSError, ValueError):
            answers.append(False)

    # In a thread, since the look-up of a name on a dead network knows no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_LIMIT_SECONDS)
    return bool(answers) and answers[0]


def _import_tfds() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            import tensorflow_datasets as tfds
        except ModuleNotFoundError:
            return None
    return tfds


def _arrays(source: Any) -> Arrays:
    examples = [source[index] for index in range(len(source))]
    images = np.stack([example["image"] for example in examples])
    return images, np.array([example["label"] for example in examples], np.int32)
