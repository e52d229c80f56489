"""Files and folders appear complete or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from anomalib_defect_plugins.core import files
from anomalib_defect_plugins.core.errors import InvalidInputError
from anomalib_defect_plugins.core.files import atomic_path, is_partial, new_folder, write_bytes, write_text


def write_and_fail(path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text("half")
        raise RuntimeError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_only_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_path(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert is_partial(partial)
        assert not is_partial(path)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


def test_an_error_keeps_the_old_file_and_leaves_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError):
        write_and_fail(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_an_error_creates_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_and_fail(tmp_path / "file.txt")
    assert names(tmp_path) == []


def test_a_failed_replacement_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError

    path = tmp_path / "file.txt"
    path.write_text("old")
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError):  # noqa: PT011 - an error without a message
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_leftover_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    leftover = tmp_path / ".file.txt.part"
    leftover.write_text("much longer than the new content")
    assert is_partial(leftover)
    write_bytes(tmp_path / "file.txt", b"new", sync=True)
    assert (tmp_path / "file.txt").read_bytes() == b"new"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_flushed_to_the_disk_before_it_appears_if_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    calls: list[str] = []

    def record(name: str) -> Callable[..., None]:
        original = getattr(os, name)

        def call(*arguments: object) -> None:
            calls.append(name)
            original(*arguments)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(files.os, name, record(name))
    write_text(tmp_path / "file.txt", "new", sync)
    assert calls == (["fsync", "replace"] if sync else ["replace"])


def test_text_is_utf_8_with_unchanged_line_endings_in_a_created_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "file.txt", "Öl\r\n1 µm\n")
    assert (tmp_path / "new" / "file.txt").read_bytes() == "Öl\r\n1 µm\n".encode()


def test_a_folder_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "folder"
    with new_folder(path) as folder:
        (folder / "file").write_text("content")
        assert not path.exists()
    assert (path / "file").read_text() == "content"
    assert names(path.parent) == ["folder"]


def test_a_failed_block_leaves_no_folder(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_create_a_folder_the_first_to_finish_wins(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with new_folder(path) as slow:
        (slow / "file").write_text("slow")
        with new_folder(path) as fast:
            (fast / "file").write_text("fast")
    assert (path / "file").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with new_folder(tmp_path / "folder") as folder:
        (folder / "file").touch()
    assert (tmp_path / "folder" / "file").is_file()


def test_a_parent_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InvalidInputError, match=r"cannot write to .*file/sub .*--data\.root"),
        new_folder(tmp_path / "file" / "sub" / "folder"),
    ):
        pass
