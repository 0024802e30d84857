import gzip
import io
import os
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cdjax import data
from cdjax.data import _archives
from cdjax.data._archives import read_archives

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    """The formats as they are, with fewer images."""
    monkeypatch.setattr(_archives, "MNIST_COUNTS", {"train": 6, "t10k": 3})
    monkeypatch.setattr(_archives, "MNIST_FIRST_LABELS", {})
    small = {
        name: cifar._replace(images_per_file=(4, 2)) for name, cifar in _archives.CIFAR.items()
    }
    monkeypatch.setattr(_archives, "CIFAR", small)


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder, *, ending=".gz", dot=False):
    arrays = {
        "train-images-idx3-ubyte": RNG.integers(256, size=(6, 28, 28)),
        "train-labels-idx1-ubyte": RNG.integers(10, size=6),
        "t10k-images-idx3-ubyte": RNG.integers(256, size=(3, 28, 28)),
        "t10k-labels-idx1-ubyte": RNG.integers(10, size=3),
    }
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if ending else idx(array)
        (folder / ((name.replace("-idx", ".idx") if dot else name) + ending)).write_bytes(content)
    return list(arrays.values())


def write_tar(path, members):
    with tarfile.open(path, "w:gz", compresslevel=0) as tar:
        for name, content in members.items():
            add(tar, name, content)


def add(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def published_pickle(label_key, labels, planes):
    """The opcodes of the published files, which Python 2 wrote and Python 3 only reads."""
    key = bytes([len(label_key)]) + label_key
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    shape = b"M" + len(planes).to_bytes(2, "little") + b"M\x00\x0c"
    size = planes.size.to_bytes(4, "little")
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U%sq\x04]q\x05(%se"
        b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87"
        b"Rq\t(K\x01%s\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff"
        b"\xffJ\xff\xff\xff\xffK\x00tb\x89T%s%stbU\tfilenamesq\x0c]q\rU\x05x.pngau."
    ) % (key, numbers, shape, size, planes.tobytes())


def cifar_members(name, kind, *, counts=(4, 2)):
    """The members of an archive, and the images and labels of its splits as they should be read."""
    layout = _archives.CIFAR[name]
    members, expected = {}, {}
    for split, files, count in (
        ("train", layout.train, counts[0]),
        ("test", layout.test, counts[1]),
    ):
        images = RNG.integers(256, size=(len(files), count, 32, 32, 3), dtype=np.uint8)
        labels = RNG.integers(layout.num_classes, size=(len(files), count))
        for file, x, y in zip(files, images, labels, strict=True):
            planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2)).reshape(count, -1)
            if kind == "python":
                content = published_pickle(layout.label_key, y, planes)
            else:
                rows = [y[:, None], planes] if name == "cifar10" else [y[:, None] // 5, y[:, None],
                                                                       planes]  # fmt: skip
                content = np.concatenate(rows, axis=1).astype(np.uint8).tobytes()
            ending = "" if kind == "python" else ".bin"
            members[f"{layout.folder[kind]}/{file}{ending}"] = content
        expected[split] = images.reshape(-1, 32, 32, 3), labels.ravel()
    return members, expected


def cifar_path(folder, name, kind):
    return folder / f"cifar-{_archives.CIFAR[name].num_classes}-{kind}.tar.gz"


@pytest.mark.parametrize("options", [{}, {"ending": ""}, {"dot": True}])
def test_the_mnist_family_reads_in_every_spelling(tmp_path, options):
    train_images, train_labels, test_images, test_labels = write_mnist(tmp_path, **options)
    train, test = read_archives("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(train[0][..., 0], train_images)
    np.testing.assert_array_equal(train[1], train_labels)
    np.testing.assert_array_equal(test[0][..., 0], test_images)
    np.testing.assert_array_equal(test[1], test_labels)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("kind", ["python", "binary"])
def test_cifar_reads_in_both_versions(tmp_path, name, kind):
    members, expected = cifar_members(name, kind)
    write_tar(cifar_path(tmp_path, name, kind), members | {"../../escape": b"never unpacked"})
    train, test = read_archives(name, tmp_path)
    for actual, wanted in ((train, expected["train"]), (test, expected["test"])):
        np.testing.assert_array_equal(actual[0], wanted[0])
        np.testing.assert_array_equal(actual[1], wanted[1])
        assert actual[0].dtype == np.uint8 and actual[1].dtype == np.int32
    assert not (tmp_path.parent.parent / "escape").exists()


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_an_empty_folder_is_no_data_set(tmp_path, name):
    assert read_archives(name, tmp_path) is None
    assert read_archives(name, tmp_path / "absent") is None


def test_a_missing_file_of_four_is_named(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataCorruptError, match="lacks t10k-labels-idx1-ubyte.gz; put it"):
        read_archives("mnist", tmp_path)


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda raw: gzip.compress(gzip.decompress(raw)[:-5]),
            "holds 4715 bytes of data, not 4720",
        ),
        (lambda raw: gzip.compress(gzip.decompress(raw) + b"x"), "holds over 4720 bytes of data"),
        (lambda raw: raw[: len(raw) // 2], "truncated or damaged"),
        (lambda raw: raw[:-1], "truncated or damaged"),
        (lambda raw: flipped(raw, -6), "truncated or damaged"),
        (lambda raw: b"", "is not such a file"),
        (lambda raw: b"<html>not found</html>", "truncated or damaged"),
        (lambda raw: gzip.compress(bytes(50_000_000)), "begins with 00000000, not 00000803"),
        (lambda raw: gzip.compress(idx(np.zeros(6))), "begins with 00000801, not 00000803"),
        (
            lambda raw: gzip.compress(idx(np.zeros((5, 28, 28)))),
            r"declares the shape \(5, 28, 28\), not \(6, 28, 28\)",
        ),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, damage, message):
    write_mnist(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(data.DataCorruptError, match=f"train-images-idx3-ubyte.gz .*{message}"):
        read_archives("mnist", tmp_path)


@pytest.mark.parametrize("cut", range(9))
def test_an_idx_file_that_ends_in_its_header_is_named(tmp_path, cut):
    write_mnist(tmp_path, ending="")
    file = tmp_path / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(data.DataCorruptError, match="t10k-labels-idx1-ubyte "):
        read_archives("mnist", tmp_path)


def test_labels_outside_of_the_classes_are_refused(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.full(6, 10))))
    with pytest.raises(data.DataCorruptError, match="labels outside 0..9"):
        read_archives("mnist", tmp_path)


def test_one_data_set_is_not_taken_for_its_namesake(tmp_path, monkeypatch):
    _, first_labels, *_ = write_mnist(tmp_path)
    monkeypatch.setattr(_archives, "MNIST_FIRST_LABELS", {"mnist": tuple(first_labels)})
    assert read_archives("mnist", tmp_path)
    with pytest.raises(data.DataCorruptError, match="holds mnist, not fashion_mnist; keep each"):
        read_archives("fashion_mnist", tmp_path)


def test_pickles_of_python_3_read_too(tmp_path):
    members, expected = cifar_members("cifar10", "python")
    for protocol, name in enumerate(members, start=2):
        batch = pickle.loads(members[name], encoding="bytes")
        members[name] = pickle.dumps(batch, protocol=min(protocol, 4))
    write_tar(cifar_path(tmp_path, "cifar10", "python"), members)
    train, test = read_archives("cifar10", tmp_path)
    np.testing.assert_array_equal(train.images, expected["train"][0])
    np.testing.assert_array_equal(train.labels, expected["train"][1])
    np.testing.assert_array_equal(test.images, expected["test"][0])


class Call:
    """Pickles as a call, which unpickling would make."""

    def __reduce__(self):
        return os.abort, ()


def batch(pixels, labels=(0,) * 4):
    return pickle.dumps({b"data": pixels, b"labels": list(labels)}, protocol=2)


PIXELS = np.zeros((4, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged batch"),
        (b"junk", "damaged batch"),
        (batch(PIXELS)[:-9], "damaged batch"),
        (pickle.dumps([1, 2]), "0 labels and 0 bytes of pixels"),
        (pickle.dumps({b"labels": [0] * 4}), "4 labels and 0 bytes of pixels"),
        (batch(PIXELS[:3]), "4 labels and 0 bytes of pixels; expected 4 images of 3072 bytes"),
        (batch(PIXELS, [0] * 5), "5 labels and 12288 bytes of pixels"),
        (batch(PIXELS.astype(np.int8)), "a batch of"),
        (batch(np.asfortranarray(np.ones_like(PIXELS))), "4 labels and 0 bytes of pixels"),
        (batch(PIXELS, [0, 1, 2, 10]), "labels outside 0..9"),
        (batch(PIXELS, [0, 1, 2, -1]), "labels outside 0..9"),
        (batch(PIXELS, [0, 1, 2, 0.5]), "3 labels"),
        (bytes(2_000_000), "unpacks to more than"),
        # Six bytes that would make an unpickler clear 64 GB.
        (b"\x80\x02}r\xff\xff\xff\xff.", "0 labels"),
        (pickle.dumps(Call()), "0 labels"),
    ],
)
def test_a_damaged_or_hostile_batch_is_refused_and_not_run(tmp_path, content, message):
    members, _ = cifar_members("cifar10", "python")
    write_tar(
        tmp_path / "cifar-10-python.tar.gz",
        members | {"cifar-10-batches-py/data_batch_2": content},
    )
    with pytest.raises(data.DataCorruptError, match=f"cifar-10-python.tar.gz .*{message}"):
        read_archives("cifar10", tmp_path)


@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_member_is_named(tmp_path, name, kind):
    members, _ = cifar_members(name, kind)
    lost, _ = members.popitem()
    write_tar(cifar_path(tmp_path, name, kind), members)
    with pytest.raises(data.DataCorruptError, match=f"lacks {lost.removesuffix('.bin')}; fetch it"):
        read_archives(name, tmp_path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_plain_file_is_not_followed(tmp_path, kind):
    members, _ = cifar_members("cifar10", "binary")
    lost, content = members.popitem()
    (tmp_path / "secret").write_bytes(content)
    link = tarfile.TarInfo(lost)
    link.type, link.linkname = kind, str(tmp_path / "secret")
    with tarfile.open(cifar_path(tmp_path, "cifar10", "binary"), "w:gz") as tar:
        tar.addfile(link)
        for name, content in members.items():
            add(tar, name, content)
    with pytest.raises(data.DataCorruptError, match=f"lacks {lost.removesuffix('.bin')}; fetch it"):
        read_archives("cifar10", tmp_path)


def test_a_tar_whose_header_promises_more_than_there_is_is_refused(tmp_path):
    members, _ = cifar_members("cifar10", "binary")
    entry = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    entry.size = 2**40
    raw = entry.tobuf() + b"".join(members.values())
    cifar_path(tmp_path, "cifar10", "binary").write_bytes(gzip.compress(raw, compresslevel=0))
    with pytest.raises(data.DataCorruptError, match="cifar-10-binary.tar.gz "):
        read_archives("cifar10", tmp_path)


def test_a_bomb_is_not_unpacked_beyond_the_size_of_the_data_set(tmp_path):
    bomb = cifar_path(tmp_path, "cifar10", "binary")
    with gzip.open(bomb, "wb", compresslevel=1) as packed:
        for _ in range(64):
            packed.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(data.DataCorruptError, match="unpacks to more than"):
        read_archives("cifar10", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_a_member_of_the_wrong_length_is_refused(tmp_path):
    members, _ = cifar_members("cifar100", "binary")
    write_tar(
        tmp_path / "cifar-100-binary.tar.gz",
        {name: content[:-1] for name, content in members.items()},
    )
    with pytest.raises(data.DataCorruptError, match="holds 12295 bytes of data, not 12296"):
        read_archives("cifar100", tmp_path)


def test_a_flipped_bit_is_found(tmp_path):
    file = tmp_path / "cifar-10-binary.tar.gz"
    members, _ = cifar_members("cifar10", "binary")
    with (
        gzip.open(file, "wb", compresslevel=0) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for name, content in members.items():
            add(tar, name, content)
    assert read_archives("cifar10", tmp_path)
    file.write_bytes(flipped(file.read_bytes(), 40_000))
    with pytest.raises(data.DataCorruptError, match="truncated or damaged: CRC check failed"):
        read_archives("cifar10", tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_cifar_archive_is_named(tmp_path, keep):
    file = tmp_path / "cifar-10-binary.tar.gz"
    write_tar(file, cifar_members("cifar10", "binary")[0])
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(data.DataCorruptError, match="cifar-10-binary.tar.gz"):
        read_archives("cifar10", tmp_path)


@pytest.mark.slow
def test_the_published_size_of_cifar10_reads(tmp_path, monkeypatch):
    full = _archives.CIFAR["cifar10"]._replace(images_per_file=(10_000, 10_000))
    monkeypatch.setattr(_archives, "CIFAR", {"cifar10": full})
    members, expected = cifar_members("cifar10", "python", counts=(10_000, 10_000))
    write_tar(tmp_path / "cifar-10-python.tar.gz", members)
    dataset = data.load("cifar10", tmp_path)
    np.testing.assert_array_equal(dataset.train_images, expected["train"][0])
    np.testing.assert_array_equal(dataset.test_labels, expected["test"][1])


def rewritten(folder, change):
    for path in list(folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        name, content = change(path.name, content)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda name, content: (name, gzip.decompress(content)),  # as browsers do
        lambda name, content: (name.removesuffix(".gz"), content),
        lambda name, content: (name.upper(), content),
    ],
)
def test_what_a_file_holds_is_told_by_its_first_bytes(tmp_path, change):
    train_images, *_ = write_mnist(tmp_path)
    rewritten(tmp_path, change)
    np.testing.assert_array_equal(data.load("mnist", tmp_path).train_images[..., 0], train_images)


@pytest.mark.parametrize("below", [".", "FashionMNIST", "FashionMNIST/raw"])
def test_the_layout_of_torchvision_is_read(tmp_path, below):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    _, train_labels, *_ = write_mnist(raw, ending="")
    dataset = data.load("fashion_mnist", tmp_path / below)
    np.testing.assert_array_equal(dataset.train_labels, train_labels)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("inside", [False, True])
def test_an_unpacked_cifar_archive_is_read_and_not_unpickled(tmp_path, name, kind, inside):
    members, expected = cifar_members(name, kind)
    for member, content in members.items():
        (tmp_path / member).parent.mkdir(exist_ok=True)
        (tmp_path / member).write_bytes(content)
    folder = (tmp_path / member).parent if inside else tmp_path
    train, test = read_archives(name, folder)
    np.testing.assert_array_equal(train.images, expected["train"][0])
    np.testing.assert_array_equal(test.labels, expected["test"][1])
    (tmp_path / member).write_bytes(pickle.dumps(Call()))
    with pytest.raises(data.DataCorruptError, match="0 labels|bytes of data"):
        read_archives(name, folder)
    (tmp_path / member).unlink()
    with pytest.raises(data.DataCorruptError, match="lacks test"):
        read_archives(name, folder)


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar-10-binary.tar"])
def test_an_unpacked_or_named_archive_file_is_read(tmp_path, name):
    members, expected = cifar_members("cifar10", "binary")
    write_tar(tmp_path / "x", members)
    (tmp_path / name).write_bytes(gzip.decompress((tmp_path / "x").read_bytes()))
    dataset = data.load("cifar10", tmp_path / name if name.endswith(".gz") else tmp_path)
    np.testing.assert_array_equal(dataset.train_images, expected["train"][0])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"PK\x03\x04...", "a zip archive"),
        (b"BZh91AY", "compressed by bzip2"),
        (b"\xfd7zXZ\x00..", "compressed by xz"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
    ],
)
def test_what_lies_in_place_of_an_archive_is_named(tmp_path, content, kind):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    with pytest.raises(data.DataCorruptError, match=f"it is {kind}"):
        data.load("cifar10", tmp_path)


def test_another_set_under_the_names_of_mnist_is_told(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setattr(_archives, "MNIST_FIRST_LABELS", {"mnist": (5, 0, 4, 1)})
    with pytest.raises(data.DataCorruptError, match="holds another data set than mnist .* not 5 0"):
        data.load("mnist", tmp_path)


def test_a_data_set_that_is_not_there_says_what_is(tmp_path):
    def message(folder):
        with pytest.raises(data.DataNotFoundError) as error:
            data.load("cifar10", folder, download=False)
        return str(error.value)

    assert "(it is empty)" in message(tmp_path)
    assert "(there is no such folder)" in message(tmp_path / "absent")
    (tmp_path / "cifar.zip").write_bytes(b"")
    assert "(it holds 'cifar.zip')" in message(tmp_path)
    assert "(a file; give its folder)" in message(tmp_path / "cifar.zip")


@pytest.mark.skipif(
    not FASHION_MNIST.exists(), reason="needs Debian's package dataset-fashion-mnist"
)
def test_the_real_fashion_mnist(monkeypatch):
    monkeypatch.undo()
    dataset = data.load("fashion_mnist", FASHION_MNIST)
    with pytest.raises(data.DataCorruptError, match="holds fashion_mnist, not mnist"):
        data.load("mnist", FASHION_MNIST)
    assert dataset.train_images.shape == (60_000, 28, 28, 1)
    assert np.bincount(dataset.train_labels).tolist() == [6000] * 10
    assert np.bincount(dataset.test_labels).tolist() == [1000] * 10
    # The mean pixel as published widely for normalisation, 0.2860.
    assert dataset.train_images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
