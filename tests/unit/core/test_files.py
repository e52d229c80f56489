"""Folders that appear whole or not at all."""

import pytest

from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import new_folder


def test_a_folder_appears_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "made" / "here"
    with new_folder(path) as folder:
        (folder / "file").write_text("content")
        assert not path.exists()
    assert (path / "file").read_text() == "content"
    assert [entry.name for entry in path.parent.iterdir()] == ["here"]


def test_a_failed_block_leaves_nothing_behind(tmp_path):
    def fail() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_of_two_that_make_the_same_folder_the_first_to_finish_wins(tmp_path):
    path = tmp_path / "folder"
    with new_folder(path) as slow:
        (slow / "file").write_text("slow")
        with new_folder(path) as fast:
            (fast / "file").write_text("fast")
    assert (path / "file").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_folder_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with new_folder(tmp_path / "folder") as folder:
        (folder / "file").touch()
    assert (tmp_path / "folder" / "file").is_file()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InvalidInputError, match=r"cannot write to .*file/sub .*--data\.root"),
        new_folder(tmp_path / "file" / "sub" / "folder"),
    ):
        pass
