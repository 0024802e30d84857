import urllib.error
import urllib.request

import numpy as np
import pytest
from sklearn.datasets import load_digits

from cdjax import data


@pytest.fixture
def offline(monkeypatch):
    def refuse(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_the_digits_are_scikit_learns_enlarged_to_cifars_shape():
    dataset, originals = data.load("digits"), load_digits()
    assert dataset.train_images.shape == (1437, 32, 32, 3)
    assert dataset.test_images.shape == (360, 32, 32, 3)
    images = np.concatenate([dataset.train_images, dataset.test_images])
    assert images.dtype == np.uint8 and images.max() == 255
    assert (images == images[..., :1]).all()
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(originals.target))
    # Four by four blocks have nearly the brightness of the pixel that they were.
    blocks = images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)).reshape(-1, 64)
    wanted = originals.data * 255 / 16
    nearest = ((blocks[::100, None] - wanted) ** 2).mean(axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(originals.target[nearest], labels[::100])


def test_the_digits_are_split_alike_in_every_class_and_every_time():
    first, again = data.load("digits"), data.load("digits")
    np.testing.assert_array_equal(first.test_images, again.test_images)
    whole = np.bincount(first.train_labels) + np.bincount(first.test_labels)
    assert np.abs(np.bincount(first.test_labels) - whole / 5).max() < 1


def test_the_digits_are_enlarged_bilinearly():
    dataset, originals = data.load("digits"), load_digits()
    is_first = dataset.test_labels == 0
    image = dataset.test_images[is_first][0, ..., 0]
    original = originals.images[originals.target == 0][0] * 255 / 16
    # The centres of the 32 pixels in units of the 8; constant beyond the outermost centres.
    centres = (np.arange(32) + 0.5) / 4 - 0.5
    rows = np.array([np.interp(centres, np.arange(8), row) for row in original])
    wanted = np.array([np.interp(centres, np.arange(8), column) for column in rows.T]).T
    np.testing.assert_allclose(image, wanted, atol=0.5)


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(
        ValueError, match=r"unknown data set 'cifar' \(did you mean 'cifar10'\?\); expected one of"
    ):
        data.load("cifar")


@pytest.mark.parametrize("default_folder", [False, True])
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_the_error_for_a_data_set_that_cannot_be_found_names_the_remedies(
    name, default_folder, offline, tmp_path, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(data.DataNotFoundError) as error:
        data.load(name, None if default_folder else tmp_path)
    message = str(error.value)
    archive = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
    for way in (archive.get(name, "train-images-idx3-ubyte.gz"), "data_dir", "network", "'digits'"):
        assert way in message
    assert "--" not in message  # a library knows no command line
    assert f"no {name} in {tmp_path}" in message and "\n" not in message
    assert "cannot be reached" in message


def test_a_folder_of_the_data_sets_name_comes_first(tmp_path):
    for folder, file in (("mnist", "train-images-idx3-ubyte"), (".", "t10k-images-idx3-ubyte")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_bytes(b"")
    with pytest.raises(data.DataCorruptError, match="mnist lacks train-labels-idx1-ubyte.gz"):
        data.load("mnist", tmp_path)
    with pytest.raises(data.DataCorruptError, match=f"{tmp_path} lacks train-images"):
        data.load("fashion_mnist", tmp_path)


def test_downloads_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(data.DataNotFoundError, match="downloads are off"):
        data.load("cifar10", tmp_path, download=False)
