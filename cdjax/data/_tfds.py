"""Data sets through tensorflow-datasets: prepared once with TensorFlow, then read without it."""

from __future__ import annotations

import contextlib
import http.client
import threading
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cdjax.data._archives import DataCorruptError, Split

# Where tensorflow-datasets downloads each data set from.
_UPSTREAM = {
    "cifar10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "cifar100": "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/train-images-idx3-ubyte.gz",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    "train-images-idx3-ubyte.gz",
}
# For a connection; and for all, the look-up of the name included.
_REQUEST_SECONDS = 5.0
_LIMIT_SECONDS = 10.0


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


def prepare(name: str, data_dir: Path) -> str:
    """Has tensorflow-datasets download and prepare a data set. Only this needs TensorFlow.

    Returns what prevented it, as the end of a sentence; empty if it succeeded.
    """
    if not _reachable(_UPSTREAM[name]):
        return f"{_UPSTREAM[name]} cannot be reached"
    try:
        import tensorflow as tf  # pyright: ignore[reportMissingModuleSource]

        tf.config.set_visible_devices([], "GPU")  # the accelerator is JAX's
        builder = _import_tfds().builder(name, data_dir=data_dir, file_format="array_record")
        builder.download_and_prepare()
    except ImportError as error:
        return f"preparing it needs {error.name or first_line(error)}, which is not installed"
    except Exception as error:  # networks and disks fail in many ways
        return f"preparing it failed ({type(error).__name__}: {first_line(error)})"
    return ""


def first_line(error: Exception) -> str:
    """The first line of an error's message, short enough to be quoted in another message."""
    return (str(error).strip().splitlines() or [""])[0][:200]


def _reachable(url: str) -> bool:
    """Whether a server answers within seconds."""
    answers: list[bool] = []

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS):
                answers.append(True)

    # In a thread, since urlopen's timeout does not cover the look-up of the host's name, which may
    # take minutes when the network is down.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_LIMIT_SECONDS)
    return any(answers)


def _import_tfds() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its own dependencies
        import tensorflow_datasets as tfds
    return tfds


def _split(source: Any) -> Split:
    examples = [source[index] for index in range(len(source))]
    images = np.stack([example["image"] for example in examples])
    return Split(images, np.array([example["label"] for example in examples], np.int32))
