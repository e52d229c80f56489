"""Lists of images in the encodings and with the marks of editors and shells."""

import codecs
import os
from pathlib import Path

import pytest

from anomalib_defect_plugins.core.errors import InvalidInputError, MissingDataError
from anomalib_defect_plugins.inference.inspect_folder import image_paths

NAMES = ["good/0.png", "Maß 1.png", "零件.png"]

ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",  # Python writes the mark
    "utf-16": b"",
    "utf-32": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Working directory with the files of ``NAMES``."""
    monkeypatch.chdir(tmp_path)
    Path("good").mkdir()
    for name in [*NAMES, "#1.png", "it's.png"]:
        Path(name).touch()
    return tmp_path


def read(content: bytes) -> list[str]:
    Path("list.txt").write_bytes(content)
    return list(image_paths(Path("list.txt")))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", " \t\r\n", ""])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_and_line_ends_give_the_same_paths(folder: Path, encoding: str, end: str) -> None:
    del folder
    text = (end or "\n").join(NAMES) + end
    assert read(ENCODINGS[encoding] + text.encode(encoding)) == NAMES


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ('"good/0.png"', "good/0.png"),
        ("'good/0.png'", "good/0.png"),
        ('  "good/0.png"  ', "good/0.png"),
        ("good\\0.png", "good/0.png"),
        (".\\good\\0.png", "./good/0.png"),
        ("\ufeffgood/0.png", "good/0.png"),  # lists with marks that were joined
        ("#1.png", "#1.png"),
        ("it's.png", "it's.png"),
        ("missing image.png", "missing image.png"),
        ("missing\\image.png", "missing\\image.png"),
        ("'missing.png", "'missing.png"),
        ('"', '"'),
    ],
)
@pytest.mark.skipif(os.sep != "/", reason="backslashes separate folders")
def test_marks_around_a_path_are_removed_unless_they_are_in_the_name_of_a_file(
    folder: Path, line: str, path: str
) -> None:
    del folder
    assert read(f"{line}\n".encode()) == [path]


@pytest.mark.skipif(os.sep != "/", reason="such names are not allowed")
@pytest.mark.parametrize("name", [" spaces .png ", '"quoted".png"', '"quoted"', "back\\slash.png", "# a.png"])
def test_a_file_with_such_a_name_is_found(folder: Path, name: str) -> None:
    del folder
    Path(name).touch()
    assert read(f"{name}\n".encode()) == [name]


def test_comments_and_blank_lines_are_left_out(folder: Path) -> None:
    del folder
    assert read(b"# plates of Monday\n\n   \ngood/0.png\n#good/0.png\n") == ["good/0.png"]


@pytest.mark.parametrize("content", [b"", b"\n \r\n", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, b"# only this\n"])
def test_a_list_without_paths_is_an_error(folder: Path, content: bytes) -> None:
    del folder
    with pytest.raises(
        MissingDataError, match=r"^list\.txt contains no images; use a folder of images, or a text file"
    ):
        read(content)


@pytest.mark.parametrize("content", [b"\x89PNG\0\0", "a.png".encode("utf-16-le"), codecs.BOM_UTF16_LE + b"a"])
def test_other_files_are_an_error(folder: Path, content: bytes) -> None:
    del folder
    with pytest.raises(InvalidInputError, match=r"^list\.txt is not a text file; use a folder, or"):
        read(content)


def test_bytes_of_another_encoding_are_kept(folder: Path) -> None:
    del folder
    assert read("Maß.png".encode("cp1252")) == ["Ma\udcdf.png"]
