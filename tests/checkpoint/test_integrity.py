import json
import shutil

import pytest

from cdjax.checkpoint._integrity import damage_in, write_sums


@pytest.fixture
def folder(tmp_path):
    """Three files; the sums leave out one of them."""
    (tmp_path / "a").write_bytes(b"123456789")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b").write_bytes(bytes(3_000_000))
    (tmp_path / "c").write_text("left out")
    write_sums(tmp_path, [tmp_path / "a", *tmp_path.glob("inner*/**/*")])
    return tmp_path


def test_sums_are_the_sizes_and_the_published_check_value(folder):
    sums = json.loads((folder / "checksums.json").read_text())
    assert [*sums] == ["a", "inner/b"]
    assert sums["a"] == [9, 0xCBF43926] and sums["inner/b"][0] == 3_000_000


def test_a_whole_folder_has_no_damage_wherever_it_is_moved(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "folder"
    shutil.move(folder, moved)
    (moved / "c").unlink()
    assert damage_in(moved) == ""


def test_a_change_of_any_file_is_damage(folder):
    (folder / "a").write_bytes(b"123456780")
    assert damage_in(folder) == "a does not match its checksum"
    (folder / "a").write_bytes(b"12345678")
    assert damage_in(folder) == "a has 8 bytes, not 9"
    (folder / "a").unlink()
    assert damage_in(folder) == "a is missing"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 3}', '{"a": [1]}', '{"a": null}'])
def test_sums_that_are_no_sums_are_damage(text, folder):
    (folder / "checksums.json").write_text(text)
    assert damage_in(folder) == "checksums.json cannot be read"


def test_a_folder_without_sums_is_damaged(tmp_path):
    assert damage_in(tmp_path) == "checksums.json is missing"
