import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image

from cdjax import data
from cdjax.data import _tfds

ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).integers(256, size=(5, 28, 28, 1), dtype=np.uint8)


@pytest.fixture
def online(monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: io.BytesIO())


def test_without_tensorflow_the_error_names_the_extra(tmp_path, online, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"needs tensorflow; pip install 'cdjax\[prepare\]'"):
        data.prepare("mnist", tmp_path)


def test_without_a_network_nothing_is_prepared(tmp_path, monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(data.DataNotFoundError, match="no copy of mnist in .* cannot be reached; "):
        data.prepare("mnist", tmp_path)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "png")
    file.seek(0)
    return file


@pytest.fixture
def small_mnist(monkeypatch):
    """Has tensorflow-datasets' own MNIST prepare 3 + 2 images, encoded without TensorFlow."""
    tfds = _tfds._import_tfds()
    tfds.disable_progress_bar()

    def examples(first, last):
        return iter([(i, {"image": png(IMAGES[i]), "label": i}) for i in range(first, last)])

    monkeypatch.setattr(
        tfds.builder_cls("mnist"),
        "_split_generators",
        lambda self, manager: {"train": examples(0, 3), "test": examples(3, 5)},
    )
    yield tfds
    tfds.enable_progress_bar()


@pytest.fixture
def prepared(small_mnist, tmp_path):
    builder = small_mnist.builder("mnist", data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def check_small_mnist(dataset):
    assert sorted(dataset.train_labels) == [0, 1, 2] and sorted(dataset.test_labels) == [3, 4]
    np.testing.assert_array_equal(dataset.train_images, IMAGES[dataset.train_labels])
    np.testing.assert_array_equal(dataset.test_images, IMAGES[dataset.test_labels])
    assert dataset.train_images.dtype == np.uint8 and dataset.train_labels.dtype == np.int32


def test_a_prepared_copy_is_read(prepared, tmp_path):
    check_small_mnist(data.load("mnist", tmp_path, download=False))


def test_a_prepared_copy_is_found_in_the_default_folder(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    check_small_mnist(data.load("mnist", download=False))


def test_the_newest_copy_is_read(prepared, tmp_path):
    (tmp_path / "mnist" / "10.0.0").mkdir()
    (tmp_path / "mnist" / "10.0.0" / "dataset_info.json").write_text("{")
    (tmp_path / "mnist" / "10.0.1.incomplete").mkdir()
    with pytest.raises(data.DataCorruptError, match=r"mnist/10\.0\.0 cannot be read"):
        data.load("mnist", tmp_path)


def test_the_records_are_those_that_tensorflow_datasets_reads(small_mnist, prepared, tmp_path):
    sources = small_mnist.data_source("mnist", split="train", data_dir=tmp_path, download=False)
    dataset = data.load("mnist", tmp_path, download=False)
    for i, example in enumerate(sources):
        np.testing.assert_array_equal(dataset.train_images[i], example["image"])
        assert dataset.train_labels[i] == example["label"]


def test_a_record_is_read_as_protocol_buffers_write_it():
    # tf.train.Example of label 300, not packed, and of an empty image, byte for byte.
    label = b"\x0a\x05label\x12\x05\x1a\x03\x08\xac\x02"
    image = b"\x0a\x05image\x12\x04\x0a\x02\x0a\x00"
    entries = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in (label, image))
    record = b"\x0a" + bytes([len(entries)]) + entries
    assert _tfds._features(record) == {"label": 300, "image": b""}


@pytest.mark.slow
def test_reading_a_prepared_copy_takes_neither_tensorflow_nor_network(prepared, tmp_path):
    program = f"""
import socket, sys
def refuse(*_):
    raise AssertionError("asked the network")
socket.socket.connect = socket.getaddrinfo = refuse
from cdjax import data
assert len(data.load("mnist", {str(tmp_path)!r}).train_labels) == 3
assert not {{"tensorflow", "tensorflow_datasets"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_without_array_record_a_copy_is_not_read(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    told = "a prepared copy cannot be read .*array_record.* and downloads are off"
    with pytest.raises(data.DataNotFoundError, match=told):
        data.load("mnist", tmp_path, download=False)


def test_a_copy_that_lacks_a_file_or_records_is_named(prepared, tmp_path):
    shard = prepared / "mnist-test.array_record-00000-of-00001"
    shard.write_bytes((prepared / "mnist-train.array_record-00000-of-00001").read_bytes())
    with pytest.raises(data.DataCorruptError, match="has 3 records, not 2.*; delete it"):
        data.load("mnist", tmp_path)
    shard.unlink()
    with pytest.raises(data.DataCorruptError, match=f"{shard.name} is missing.*; delete it"):
        data.load("mnist", tmp_path)


def test_a_copy_is_prepared_and_read(small_mnist, online, tmp_path, monkeypatch):
    tensorflow = MagicMock()
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    data.prepare("mnist", tmp_path)
    tensorflow.config.set_visible_devices.assert_called_once_with([], "GPU")
    check_small_mnist(data.load("mnist", tmp_path, download=False))


def test_a_failed_preparation_is_told_in_one_line(small_mnist, online, tmp_path, monkeypatch):
    def fail(self, manager):
        raise OSError("no space left\non the device")

    monkeypatch.setitem(sys.modules, "tensorflow", MagicMock())
    monkeypatch.setattr(small_mnist.builder_cls("mnist"), "_split_generators", fail)
    with pytest.raises(data.DataNotFoundError, match=r"failed \(OSError: no space left\); load"):
        data.prepare("mnist", tmp_path)


def test_a_damaged_copy_is_named(prepared, tmp_path):
    (prepared / "mnist-test.array_record-00000-of-00001").write_bytes(b"junk")
    with pytest.raises(data.DataCorruptError, match=f"{prepared} cannot be read .*; delete it"):
        data.load("mnist", tmp_path)


def test_a_copy_in_tensorflows_own_format_is_named(prepared, tmp_path):
    info = json.loads((prepared / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    for file in prepared.glob("*array_record*"):
        file.rename(str(file).replace("array_record", "tfrecord"))
    with pytest.raises(data.DataCorruptError, match="tfrecord, which only TensorFlow can read"):
        data.load("mnist", tmp_path)


def test_a_copy_whose_description_is_cut_is_named(tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(data.DataCorruptError, match="mnist/3.0.1 cannot be read .*delete it"):
        data.load("mnist", tmp_path, download=False)
